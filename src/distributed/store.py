"""The key-value store of all ranks: torch's TCPStore, served by rank 0 (or by torchrun's agent).

It exists before the process group and needs no collective: a rank that polls a key can wait for hours.
"""

from __future__ import annotations

import pickle
import time
from datetime import timedelta
from functools import cache
from typing import Any

import torch.distributed

from ..errors import LlamitaError

distributed: Any = torch.distributed  # its type hints lack what is used here

CONNECT = timedelta(minutes=10)  # for the slowest rank to import its libraries
ANSWER = timedelta(seconds=45)  # for the store to answer one request


@cache
def store() -> Any:
    """This rank's connection for its main thread; made at the first call, which waits for all ranks.

    It uses MASTER_ADDR and MASTER_PORT, like the process group that is created later.
    """
    connected, _, _ = next(distributed.rendezvous("env://", timeout=CONNECT))
    connected.set_timeout(ANSWER)
    return distributed.PrefixStore("llamita", connected)


def own_connection() -> Any:
    """A second connection, for another thread: a connection serves one request at a time."""
    return store().clone()


def put(key: str, result: Any, error: Exception | None = None) -> None:
    """Stores what rank 0 has made (must pickle), or the error that it raised."""
    if error is not None and not isinstance(error, LlamitaError):
        error = LlamitaError(f"rank 0: {type(error).__name__}: {error}")
    store().set(key, pickle.dumps((result, error)))


def poll(key: str) -> Any:
    """What rank 0 `put` under a key, once it is there. Raises the error of rank 0 as LlamitaError."""
    wait = 0.01
    while not store().check([key]):
        time.sleep(wait)
        wait = min(1.5 * wait, 1.0)
    result, error = pickle.loads(store().get(key))  # written by rank 0
    if error is not None:
        raise error
    return result
