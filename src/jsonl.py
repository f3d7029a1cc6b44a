"""JSONL, one JSON value a line: whatever a stage writes or reads of its own files goes through here.

Users' data files are read by `data/file_rows.py` instead. They may be compressed, have byte order marks and
blank lines, and a bad row there is a value that is counted and perhaps left out, not an error at once.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

from .artifact import write_lines
from .errors import DataError

Row = dict[str, Any]
MAKE_AGAIN = "delete the file to make it again"


def read_rows(path: Path, *, remedy: str = MAKE_AGAIN, may_end_torn: bool = False) -> list[Row]:
    """The rows of a file, each a JSON object.

    Args:
        remedy: what to do about a broken line, for the error.
        may_end_torn: whether the last line may be half of one, where a kill came in its midst; it is dropped.

    Raises DataError naming the line that is no JSON object.
    """
    rows = []
    # lines end at "\n" alone: a sampled answer may hold other characters that end a line in Unicode
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                row = json.loads(line.decode())
            except (ValueError, RecursionError) as error:
                if may_end_torn and not line.endswith(b"\n"):
                    break
                raise DataError(f"{path}:{number}: no valid JSON ({error}); {remedy}") from None
            if not isinstance(row, dict):
                raise DataError(f"{path}:{number}: {row!r:.60} is no JSON object; {remedy}")
            rows.append(row)
    return rows


def write_rows(path: Path, rows: Iterable[object]) -> int:
    """Writes JSONL in one step, below a folder that is made if needed; returns the number of rows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_lines(path, map(_line, rows))


def append_row(file: IO[str], row: object) -> None:
    """Writes one more row to an open file."""
    file.write(f"{_line(row)}\n")


def _line(row: object) -> str:
    return json.dumps(row, ensure_ascii=False)
