"""Steps of a stage that are made once: a killed run goes on after its last finished step.

Every step is written aside and published by a rename, so what stands under its name is complete.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

from ..artifact import RESUME, clear, working_folder
from ..jsonl import Row, read_rows, write_rows
from ..processes import is_main_process
from .group import barrier

STEP_METRICS = "metrics.jsonl"  # in a step's folder: one row, what the step measured


def made_rows(path: Path, make: Callable[[], Iterable[Row]]) -> list[Row]:
    """The rows of a step, made now unless they stand already; every rank calls it and gets them all.

    Raises DataError for a file that is no longer what the step wrote.
    """
    if not _stands(path):
        rows = make()
        if is_main_process():
            write_rows(path, rows)
        barrier()
    return read_rows(path)


def made_folder(path: Path, make: Callable[[Path], Row]) -> Row:
    """The metrics of a step that fills a folder; `make` writes into another one, which is then renamed.

    Of what a killed run left there its checkpoints stay: `make` may go on from them.
    """
    if not _stands(path):
        partial = working_folder(path)
        if is_main_process():
            partial.mkdir(parents=True, exist_ok=True)
            clear(partial, keep=RESUME)
        barrier()
        metrics = make(partial)
        if is_main_process():
            write_rows(partial / STEP_METRICS, [metrics])
            shutil.rmtree(partial / RESUME, ignore_errors=True)
            partial.rename(path)
        barrier()
    return read_rows(path / STEP_METRICS)[0]


def _stands(path: Path) -> bool:
    """Whether a step is finished; all ranks look between two barriers and see the same."""
    barrier()
    stands = path.exists()
    barrier()
    return stands
