"""A data file -> its raw rows, each with the place that it came from.

Files are read as they are: nothing is copied into a cache, JSON keeps the number of each line, and no type is
guessed.
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

# (where: "file:line" or "name: row 3", raw row or why there is none)
Record = tuple[str, dict[str, Any] | DataError]

ROWS = 1000  # of a parquet file that are decoded at a time


def file_records(path: Path) -> Iterator[Record]:
    """The raw rows of a file. Raises DataError for one that can't be read to its end."""
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
        raise DataError(f"{path}: plain text has no fields; expected rows (.jsonl, .json, .parquet or .csv)")


def paragraphs(path: Path, size: int = 1 << 20) -> Iterator[str]:
    """The parts of a text file between blank lines, read `size` characters at a time."""
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
            line = line.removeprefix(codecs.BOM_UTF8)  # also within: of files that were joined
            if line and not line.isspace():
                yield f"{path}:{number}", _decoded(line)


def _json_document(path: Path) -> Iterator[Record]:
    """A .json file: an array of rows, or after all one row a line."""
    with opened_text(path) as file:
        text = file.read()
    if not text.lstrip().startswith("["):
        yield from _json_lines(path)
        return
    try:
        rows = _parsed(text)
    except _NoJson as error:
        raise DataError(f"{path}:{error.line}: no valid JSON: {error}") from None
    for number, row in enumerate(rows, 1):
        yield f"{path}: row {number}", _row(row)


def _csv_rows(path: Path) -> Iterator[Record]:
    """Rows of a CSV file with a head line, every field text."""
    csv.field_size_limit(sys.maxsize)  # otherwise a document of 128 KiB is an error
    with opened_text(path) as lines:
        reader = csv.DictReader(lines, strict=True)
        try:
            head = Counter(filter(None, reader.fieldnames or ()))
            if twice := [name for name, count in head.items() if count > 1]:
                raise DataError(f"{path}:{reader.line_num}: the head line names {twice[0]!r} twice")
            for row in reader:
                extra = f"more fields than the {len(reader.fieldnames or ())} of the head line"
                yield f"{path}:{reader.line_num}", DataError(extra) if None in row else row
        except csv.Error as error:
            raise DataError(f"{path}:{reader.line_num}: no valid CSV: {error}") from None


def _parquet_rows(path: Path) -> Iterator[Record]:
    from pyarrow import ArrowException, parquet

    try:
        with opened(path) as data:
            batches = parquet.ParquetFile(data).iter_batches(ROWS)
            rows = (row for batch in batches for row in batch.to_pylist())
            for number, row in enumerate(rows, 1):
                yield f"{path}: row {number}", row
    except ArrowException as error:
        raise DataError(f"{path}: can't be read as parquet: {error}") from None


class _NoJson(ValueError):
    """A text that is no JSON; the line is apart from the message, since errors name it as `file:line`."""

    def __init__(self, message: str, line: int) -> None:
        super().__init__(message)
        self.line = line


def _parsed(text: str) -> Any:
    """The value of a JSON text. Raises _NoJson for whatever is wrong with it."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise _NoJson(error.msg, error.lineno) from None
    except RecursionError:
        raise _NoJson("too deep", 1) from None
    except ValueError:  # Python reads no number of thousands of digits
        limit = sys.get_int_max_str_digits()
        before = re.split(rf"\d{{{limit + 1},}}", text, maxsplit=1)[0]
        raise _NoJson(f"a number of more than {limit:,} digits", before.count("\n") + 1) from None


def _decoded(line: bytes) -> dict[str, Any] | DataError:
    try:
        return _row(_parsed(line.decode()))
    except UnicodeDecodeError as error:
        return DataError(f"no valid UTF-8: {error.reason} at byte {error.start} of the line")
    except _NoJson as error:
        return DataError(f"no valid JSON: {error}; expected one object a line")


def _row(value: Any) -> dict[str, Any] | DataError:
    if isinstance(value, dict):
        return value
    return DataError(f"found {type(value).__name__}; expected a JSON object with the row's fields")
