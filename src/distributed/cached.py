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
from .group import barrier, once, wait_until_visible

PART_METRICS = "metrics.jsonl"  # in the folder of a part: its metrics, one row


def cached_rows(path: Path, make: Callable[[], Iterable[Row]]) -> list[Row]:
    """Returns the rows in `path`, after writing those of `make` to it if it does not exist.

    Every rank calls it and gets all rows. Raises DataError if the file is damaged.
    """
    if not _exists(path):
        rows = make()
        once(f"saving {path.name}", lambda: write_rows(path, rows))
    wait_until_visible(path)
    return read_rows(path)


def cached_folder(path: Path, make: Callable[[Path], Row]) -> Row:
    """Returns the metrics of a part that fills the folder `path`, after computing it if it does not exist.

    `make` writes into a temporary folder and returns the metrics; the folder is then renamed. Every rank
    calls it. Files of a killed run are removed from the temporary folder, except for checkpoints, from which
    `make` may resume.
    """
    if not _exists(path):
        partial = working_folder(path)
        once(f"opening {partial.name}", lambda: _open(partial))
        wait_until_visible(partial)
        metrics = make(partial)
        barrier()  # every rank has written
        once(f"saving {path.name}", lambda: _publish(partial, path, metrics))
    wait_until_visible(path)
    return read_rows(path / PART_METRICS)[0]


def _open(partial: Path) -> None:
    partial.mkdir(parents=True, exist_ok=True)
    clear(partial, keep=RESUME)


def _publish(partial: Path, path: Path, metrics: Row) -> None:
    write_rows(partial / PART_METRICS, [metrics])
    shutil.rmtree(partial / RESUME, ignore_errors=True)
    partial.rename(path)


def _exists(path: Path) -> bool:
    """Whether `path` exists; rank 0 looks, so that all ranks get the same answer."""
    return once(f"looking for {path.name}", path.exists)
