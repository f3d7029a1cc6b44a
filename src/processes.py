"""Rank of this process and number of ranks, from the environment variables of a launcher."""

from __future__ import annotations

import os


def world_size() -> int:
    """Number of ranks over all nodes (WORLD_SIZE; 1 without a launcher)."""
    return int(os.environ.get("WORLD_SIZE") or 1)


def rank() -> int:
    """Rank of this process over all nodes, 0 to world_size() - 1 (RANK; 0 without a launcher)."""
    return int(os.environ.get("RANK") or 0)


def is_main_process() -> bool:
    """Whether this is rank 0, the only process that prints and writes; True without a launcher."""
    return rank() == 0
