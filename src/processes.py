"""Rank of this process, number of ranks, and what this process is doing.

Rank and number of ranks come from the environment variables of a launcher.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


def world_size() -> int:
    """Number of ranks over all nodes (WORLD_SIZE; 1 without a launcher)."""
    return int(os.environ.get("WORLD_SIZE") or 1)


def rank() -> int:
    """Rank of this process over all nodes, 0 to world_size() - 1 (RANK; 0 without a launcher)."""
    return int(os.environ.get("RANK") or 0)


def is_main_process() -> bool:
    """Whether this is rank 0, the only process that prints and writes; True without a launcher."""
    return rank() == 0


@dataclass
class Activity:
    """What this process is doing, for the watchdog and for error messages.

    Attributes:
        phase: such as "loading", "training" or "saving".
        step: optimizer step or iteration that is running, if there is one.
        progress: increases whenever work has advanced.
        polls: whether the process polls for something that rank 0 makes.
    """

    phase: str = "starting"
    step: int | None = None
    progress: int = 0
    polls: bool = False

    def __str__(self) -> str:
        return self.phase if self.step is None else f"{self.phase}, step {self.step:,}"


ACTIVITY = Activity()


@contextmanager
def phase(name: str) -> Iterator[None]:
    """Context (or decorator) of a phase; afterwards the process is in the phase before.

    If an exception leaves it, the phase stays, so that the error's message can name it.
    """
    before = ACTIVITY.phase
    enter_phase(name, ACTIVITY.step)
    yield
    enter_phase(before, ACTIVITY.step)


def enter_phase(name: str, step: int | None = None) -> None:
    """Sets the phase, and the optimizer step or iteration in it, until the next call."""
    ACTIVITY.phase, ACTIVITY.step = name, step
    advanced()


def advanced() -> None:
    """Reports that work has advanced; a rank that does not for the time limit counts as hung."""
    ACTIVITY.progress += 1
