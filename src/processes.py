"""This process's rank and the number of ranks, from the environment variables that a launcher sets."""

from __future__ import annotations

import os


def world_size() -> int:
    """Number of processes that train together (the launcher's WORLD_SIZE, 1 without one)."""
    return int(os.environ.get("WORLD_SIZE") or 1)


def rank() -> int:
    """This process's place, 0 to world_size() - 1, over all machines."""
    return int(os.environ.get("RANK") or 0)


def is_main_process() -> bool:
    """True where no launcher is at work, and on its rank 0: the one process that speaks and writes."""
    return rank() == 0
