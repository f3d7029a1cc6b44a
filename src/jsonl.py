"""Files of JSON objects, one a line, that a stage writes and reads again."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .artifact import write_lines
from .errors import DataError

Row = dict[str, Any]


def read_rows(path: Path) -> list[Row]:
    """Raises DataError naming the line that is no JSON object."""
    rows = []
    # lines end at "\n" alone: a sampled answer may hold other characters that end a line in Unicode
    with path.open(encoding="utf-8", newline="\n") as file:
        for number, line in enumerate(file, start=1):
            try:
                row = json.loads(line)
            except ValueError as error:
                raise DataError(
                    f"{path}:{number}: no valid JSON ({error}); delete the file to make it again"
                ) from None
            if not isinstance(row, dict):
                raise DataError(f"{path}:{number}: expected a JSON object; delete the file to make it again")
            rows.append(row)
    return rows


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """Writes JSONL in one step, below a folder that is made if needed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_lines(path, (json.dumps(row, ensure_ascii=False) for row in rows))
