"""What the system lets this process use: processor cores and open files."""

from __future__ import annotations

import os
import resource

from .errors import ConfigError

OTHER_FILES = 512  # open files that a stage needs for other things, at most


def available_cores() -> int:
    """Number of processor cores that this process may use: Slurm and containers can restrict it to a few."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def allow_open_files(count: int, what: str) -> None:
    """Raises this process's limit of open files for `count` more, connections among them, if it is lower.

    Raises ConfigError, which begins with `what`, if the system does not allow so many.
    """
    needed = count + OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise ConfigError(
            f"{what}: needs {needed:,} open files, and this system allows a process {hard:,}; lower it, or "
            "raise the hard limit (`ulimit -Hn`)"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
