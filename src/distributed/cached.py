"""Parts of a stage that are computed once: a resumed run loads those that are finished.

Every part is written under a temporary name and then renamed, so a file or folder under its final name is
complete.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

from ..artifact import RESUME, clear, working_folder
from ..jsonl import Row, read_rows, write_rows
from ..processes import is_main_process
from .group import barrier

PART_METRICS = "metrics.jsonl"  # in the folder of a part: its metrics, one row


def cached_rows(path: Path, make: Callable[[], Iterable[Row]]) -> list[Row]:
    """Returns the rows in `path`, after writing those of `make` to it if it does not exist.

    Every rank calls it and gets all rows. Raises DataError if the file is damaged.
    """
    if not _exists(path):
        rows = make()
        if is_main_process():
            write_rows(path, rows)
        barrier()
    return read_rows(path)


def cached_folder(path: Path, make: Callable[[Path], Row]) -> Row:
    """Returns the metrics of a part that fills the folder `path`, after computing it if it does not exist.

    `make` writes into a temporary folder and returns the metrics; the folder is then renamed. Every rank
    calls it. Files of a killed run are removed from the temporary folder, except for checkpoints, from which
    `make` may resume.
    """
    if not _exists(path):
        partial = working_folder(path)
        if is_main_process():
            partial.mkdir(parents=True, exist_ok=True)
            clear(partial, keep=RESUME)
        barrier()
        metrics = make(partial)
        if is_main_process():
            write_rows(partial / PART_METRICS, [metrics])
            shutil.rmtree(partial / RESUME, ignore_errors=True)
            partial.rename(path)
        barrier()
    return read_rows(path / PART_METRICS)[0]


def _exists(path: Path) -> bool:
    """Whether `path` exists; all ranks check between two barriers and get the same result."""
    barrier()
    exists = path.exists()
    barrier()
    return exists
