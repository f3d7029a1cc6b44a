"""JSONL (one JSON value a line): reading and writing the files of the stages themselves.

`data/file_rows.py` reads users' data files instead. Those may be compressed and have a BOM or blank lines; a
bad row there is counted and may be skipped, while here it is an error.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

from .artifact import write_lines
from .errors import DataError

Row = dict[str, Any]
REMEDY = "delete the file to write it again"


def read_rows(path: Path, *, remedy: str = REMEDY, may_end_torn: bool = False) -> list[Row]:
    """Reads the rows of a file, each a JSON object.

    Args:
        remedy: what to do about a broken line, as part of the error message.
        may_end_torn: whether an incomplete last line, left by a kill, is dropped.

    Raises DataError with the number of a line that is not a JSON object.
    """
    rows = []
    # split at "\n" only: a sampled answer may contain other line separators of Unicode
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                row = json.loads(line.decode())
            except (ValueError, RecursionError) as error:
                if may_end_torn and not line.endswith(b"\n"):
                    break
                raise DataError(f"{path}:{number}: invalid JSON ({error}); {remedy}") from None
            if not isinstance(row, dict):
                raise DataError(f"{path}:{number}: expected a JSON object, found {row!r:.60}; {remedy}")
            rows.append(row)
    return rows


def write_rows(path: Path, rows: Iterable[object]) -> int:
    """Writes JSONL atomically, creates the parent folder if needed, and returns the number of rows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_lines(path, map(_line, rows))


def append_row(file: IO[str], row: object) -> None:
    """Appends one row to an open file."""
    file.write(f"{_line(row)}\n")


def _line(row: object) -> str:
    return json.dumps(row, ensure_ascii=False)
