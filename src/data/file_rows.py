"""Reads the raw rows of a data file, each with its location.

Files are read directly: nothing is copied into a cache, JSON rows have line numbers, and no type is inferred.
"""

from __future__ import annotations

import codecs
import csv
import json
import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import DataError
from .files import kind_of
from .unpacking import opened, opened_text

# (location: "file:line" or "name: row 3"; raw row, or the error if it can't be parsed)
Record = tuple[str, dict[str, Any] | DataError]

ROWS = 1000  # rows of a parquet file that are decoded at a time


def file_records(path: Path) -> Iterator[Record]:
    """Yields the raw rows of a file. Raises DataError if the file can't be read to its end."""
    kind = kind_of(path)
    if kind == "jsonl":
        yield from _json_lines(path)
    elif kind == "json":
        yield from _json_document(path)
    elif kind == "csv":
        yield from _csv_rows(path)
    elif kind == "parquet":
        yield from _parquet_rows(path)
    else:
        raise DataError(
            f"{path}: a plain text file has no fields; expected rows (.jsonl, .json, .parquet or .csv)"
        )


def paragraphs(path: Path, size: int = 1 << 20) -> Iterator[str]:
    """Yields the paragraphs of a text file, which blank lines separate; reads `size` characters at a time."""
    rest = ""
    with opened_text(path) as text:
        while part := text.read(size):
            *whole, rest = (rest + part).split("\n\n")
            yield from filter(None, whole)
    if rest:
        yield rest


def _json_lines(path: Path) -> Iterator[Record]:
    with opened(path) as lines:
        for number, line in enumerate(lines, 1):
            line = line.removeprefix(codecs.BOM_UTF8)  # also inside a file: concatenated files keep theirs
            if line and not line.isspace():
                yield f"{path}:{number}", _decoded(line)


def _json_document(path: Path) -> Iterator[Record]:
    """Yields the rows of a .json file: an array of rows, or one row per line as in .jsonl."""
    with opened_text(path) as file:
        text = file.read()
    if not text.lstrip().startswith("["):
        yield from _json_lines(path)
        return
    try:
        rows = _parsed(text)
    except _InvalidJson as error:
        raise DataError(f"{path}:{error.line}: invalid JSON: {error}") from None
    for number, row in enumerate(rows, 1):
        yield f"{path}: row {number}", _row(row)


def _csv_rows(path: Path) -> Iterator[Record]:
    """Yields the rows of a CSV file with a header line; every field is text."""
    csv.field_size_limit(sys.maxsize)  # the default rejects fields above 128 KiB
    with opened_text(path) as lines:
        reader = csv.DictReader(lines, strict=True)
        try:
            header = Counter(filter(None, reader.fieldnames or ()))
            if repeated := [name for name, count in header.items() if count > 1]:
                raise DataError(
                    f"{path}:{reader.line_num}: the header line contains {repeated[0]!r} twice; expected "
                    "different names"
                )
            for row in reader:
                extra = f"the row has more fields than the {len(reader.fieldnames or ())} in the header line"
                yield f"{path}:{reader.line_num}", DataError(extra) if None in row else row
        except csv.Error as error:
            raise DataError(f"{path}:{reader.line_num}: invalid CSV: {error}") from None


def _parquet_rows(path: Path) -> Iterator[Record]:
    from pyarrow import ArrowException, parquet

    try:
        with opened(path) as data:
            batches = parquet.ParquetFile(data).iter_batches(ROWS)
            rows = (row for batch in batches for row in batch.to_pylist())
            for number, row in enumerate(rows, 1):
                yield f"{path}: row {number}", row
    except ArrowException as error:
        raise DataError(f"{path}: the file can't be read as parquet: {error}") from None


class _InvalidJson(ValueError):
    """Invalid JSON; the line number is not part of the message, since errors begin with `file:line`."""

    def __init__(self, message: str, line: int) -> None:
        super().__init__(message)
        self.line = line


def _parsed(text: str) -> Any:
    """Parses a JSON text. Raises _InvalidJson for every kind of error."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise _InvalidJson(error.msg, error.lineno) from None
    except RecursionError:
        raise _InvalidJson("nested too deeply", 1) from None
    except ValueError:  # Python limits the number of digits of an integer
        limit = sys.get_int_max_str_digits()
        before = re.split(rf"\d{{{limit + 1},}}", text, maxsplit=1)[0]
        raise _InvalidJson(f"a number of more than {limit:,} digits", before.count("\n") + 1) from None


def _decoded(line: bytes) -> dict[str, Any] | DataError:
    try:
        return _row(_parsed(line.decode()))
    except UnicodeDecodeError as error:
        return DataError(f"invalid UTF-8: {error.reason} at byte {error.start} of the line")
    except _InvalidJson as error:
        return DataError(f"invalid JSON: {error}; expected one object per line")


def _row(value: Any) -> dict[str, Any] | DataError:
    if isinstance(value, dict):
        return value
    return DataError(f"the row is a {type(value).__name__}; expected a JSON object with the row's fields")
