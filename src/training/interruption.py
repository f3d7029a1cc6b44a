"""SIGTERM, the warning of Slurm and Kubernetes, SIGHUP and Ctrl-C: a run saves itself before it ends."""

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
    """Within it SIGTERM, SIGHUP and a first Ctrl-C only set a flag; a second Ctrl-C acts as it did before.

    SIGTERM may come twice, from Slurm and from DeepSpeed's launcher; SIGHUP counts unless the run was started
    with it ignored, as by `nohup`. Yields what tells whether a signal came, to any of the ranks: all of them
    call it at the same moments.
    """
    came = threading.Event()
    before: dict[signal.Signals, Any] = {}

    def handle(number: int, _: object) -> None:
        came.set()
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, before[signal.SIGINT])

    if threading.current_thread() is threading.main_thread():  # Python takes signals there alone
        for one in (*ending_signals(), signal.SIGINT):
            before[one] = signal.signal(one, handle)
    try:
        yield lambda: bool(all_reduce_sum(torch.tensor(int(came.is_set()))))
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
