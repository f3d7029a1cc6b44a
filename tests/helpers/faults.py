"""Runs a stage's command on two ranks, which are forks of this process, with a fault in one of them."""

from __future__ import annotations

import atexit
import multiprocessing
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from .two_ranks import free_port

FOREVER = 10**6


@dataclass(frozen=True)
class Fault:
    """What happens on `rank` when it enters a phase, at `step` or later; None: at once."""

    rank: int
    phase: str
    step: int | None
    kind: Literal["error", "hang"]

    def happens(self) -> None:
        if self.kind == "error":
            raise OSError("injected")
        time.sleep(FOREVER)


def start_two_ranks(arguments: list[str], folder: Path, fault: Fault | None = None) -> tuple[list[int], str]:
    """Runs `llamita ARGUMENTS` on two ranks; returns their exit codes and their output."""
    context = multiprocessing.get_context("fork")
    log, port = folder / "log", free_port()
    log.unlink(missing_ok=True)
    ranks = [context.Process(target=_rank, args=(rank, arguments, log, port, fault)) for rank in range(2)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(120)
    codes = [-1 if process.exitcode is None else process.exitcode for process in ranks]
    for process in ranks:
        process.kill()
    return codes, log.read_text()


def _rank(rank: int, arguments: list[str], log: Path, port: int, fault: Fault | None) -> None:
    from accelerate.state import AcceleratorState

    from llamita.cli import main

    AcceleratorState._reset_state(reset_partial_state=True)  # that of earlier tests
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WANDB_MODE": "disabled"}
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    if fault is not None and fault.rank == rank:
        _inject(fault)
    sys.argv = ["llamita", *arguments]
    atexit._clear()  # those of the tests
    try:
        main()
    finally:
        atexit._run_exitfuncs()  # multiprocessing leaves them out


def _inject(fault: Fault) -> None:
    from llamita import processes

    class Faulty(processes.Activity):
        def __setattr__(self, name: str, value: Any) -> None:
            super().__setattr__(name, value)
            entered = name == "step" and self.phase == fault.phase  # set after the phase
            if entered and (fault.step is None or (value or 0) >= fault.step):
                fault.happens()

    processes.ACTIVITY.__class__ = Faulty
