"""SIGTERM (sent by Slurm and Kubernetes), SIGHUP and Ctrl-C: a run saves a checkpoint before it stops."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from ..distributed.group import all_reduce_sum
from ..terminal import ending_signals


@contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Context in which SIGTERM, SIGHUP and the first Ctrl-C only set a flag.

    A second Ctrl-C has its usual effect. SIGTERM may arrive twice, from Slurm and from DeepSpeed's launcher.
    SIGHUP is ignored if the run was started with it ignored (`nohup`).

    Yields a function that returns whether any rank has received a signal; all ranks must call it together.
    """
    received = threading.Event()
    old_handlers: dict[signal.Signals, Any] = {}

    def handle(number: int, _: object) -> None:
        received.set()
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, old_handlers[signal.SIGINT])

    if threading.current_thread() is threading.main_thread():  # others can't set handlers
        for number in (*ending_signals(), signal.SIGINT):
            old_handlers[number] = signal.signal(number, handle)
    try:
        yield lambda: bool(all_reduce_sum(torch.tensor(int(received.is_set()))))
    finally:
        for number, old_handler in old_handlers.items():
            signal.signal(number, old_handler)
