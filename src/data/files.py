"""Files and Hub sets -> raw rows, each with the place that it came from.

Local files are streamed through `datasets`: no copy in a cache, gzip included. JSON and CSV go through it as
lines of text and are decoded here, since Arrow would guess types and lose the number of a wrong line.
"""

from __future__ import annotations

import csv
import json
import re
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ..errors import DataError

# (where: "file:line" or "name: row 3", raw row or why there is none)
Record = tuple[str, dict[str, Any] | DataError]


KINDS = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".parquet": "parquet",
    ".csv": "csv",
    ".txt": "text",
}
UNREADABLE = (ValueError, EOFError, zlib.error, OSError)  # of pyarrow, gzip and text decoding


def data_files(place: Path, split: str) -> list[Path]:
    """A single file, or the files below a folder whose names say the split (all, if none does)."""
    if place.is_file():
        if not kind_of(place):
            raise DataError(
                f"{place}: unknown kind of file; expected {', '.join(KINDS)}, also with .gz or .zst"
            )
        return [place]
    files = sorted(path for path in place.rglob("*") if path.is_file() and kind_of(path))
    named = re.compile(rf"(^|[^a-zA-Z]){re.escape(split)}([^a-zA-Z]|$)")
    of_split = [path for path in files if named.search(str(path.relative_to(place)))]
    if not of_split and split != "train":
        raise DataError(f"{place}: no file of split {split!r}")
    files = of_split or files
    kinds = {kind_of(path) for path in files}
    if len(kinds) != 1:
        found = ", ".join(sorted(map(str, kinds))) or "none"
        raise DataError(
            f"{place}: expected data files of one kind in this folder, found {found}; name one file"
        )
    return files


def kind_of(path: Path) -> str | None:
    name = path.name.lower()
    return KINDS.get(Path(name.removesuffix(".gz").removesuffix(".zst")).suffix)


def file_records(path: Path) -> Iterator[Record]:
    kind = kind_of(path)
    if kind == "jsonl":
        yield from _json_lines(path, (row["text"] for row in stream(path, "text")))
    elif kind == "json":
        yield from _json_document(path)
    elif kind == "csv":
        yield from _csv_rows(path)
    elif kind == "parquet":
        for number, row in enumerate(stream(path, "parquet"), 1):
            yield f"{path}: row {number}", row
    else:
        raise DataError(f"{path}: plain text has no fields; expected rows (.jsonl, .json, .parquet or .csv)")


def _json_lines(path: Path, lines: Iterable[str]) -> Iterator[Record]:
    for number, line in enumerate(lines, 1):
        if line and not line.isspace():
            yield f"{path}:{number}", _decoded(line)


def _json_document(path: Path) -> Iterator[Record]:
    """A .json file: an array of rows, or after all one row a line."""
    text = "".join(row["text"] for row in stream(path, "text", sample_by="document"))
    if not text.lstrip().startswith("["):
        yield from _json_lines(path, text.split("\n"))
        return
    try:
        rows = json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(f"{path}:{error.lineno}: no valid JSON: {error.msg}") from None
    for number, row in enumerate(rows, 1):
        yield f"{path}: row {number}", _row(row)


def _csv_rows(path: Path) -> Iterator[Record]:
    """Rows of a CSV file with a head line, every field text."""
    reader = csv.DictReader((f"{row['text']}\n" for row in stream(path, "text")), strict=True)
    try:
        for row in reader:
            where = f"{path}:{reader.line_num}"
            if None in row:
                raise DataError(
                    f"{where}: more fields than the {len(reader.fieldnames or ())} of the head line"
                )
            yield where, row
    except csv.Error as error:
        raise DataError(f"{path}:{reader.line_num}: no valid CSV: {error}") from None


def _decoded(line: str) -> dict[str, Any] | DataError:
    try:
        return _row(json.loads(line))
    except (json.JSONDecodeError, RecursionError) as error:
        message = getattr(error, "msg", "too deep")
        return DataError(f"no valid JSON: {message}; expected one object a line")


def _row(value: Any) -> dict[str, Any] | DataError:
    if isinstance(value, dict):
        return value
    return DataError(f"found {type(value).__name__}; expected a JSON object with the row's fields")


def stream(path: Path, builder: str, **options: Any) -> Iterator[dict[str, Any]]:
    import datasets

    try:
        if path.stat().st_size == 0:
            raise ValueError("the file is empty")
        yield from datasets.load_dataset(
            builder, data_files=str(path), split="train", streaming=True, **options
        )
    except UNREADABLE as error:
        raise DataError(f"{path}: can't be read as {builder}: {error}") from None


def hub_records(name: str, split: str, streaming: bool) -> Iterator[Record]:
    """Rows of a Hub set `org/name`, or `org/name:config`."""
    import datasets

    repository, _, config = name.partition(":")
    number = 0
    try:
        rows = datasets.load_dataset(repository, config or None, split=split, streaming=streaming)
        for number, row in enumerate(rows, 1):
            yield f"{name}: row {number}", row
    except Exception as error:  # the Hub's failures have no common base class
        what = f"not read from the Hub behind row {number}" if number else "not read from the Hub"
        raise DataError(
            f"{name}: not below the data folder, and {what} ({type(error).__name__}: {error})"
        ) from None
