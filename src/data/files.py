"""Files and Hub sets -> raw rows, each with the place that it came from.

Local files are read as they are: no path is a pattern, nothing is copied into a cache. JSON keeps the number
of each line, and no type is guessed.
"""

from __future__ import annotations

import codecs
import csv
import json
import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import DataError
from .opening import opened, opened_text

# (where: "file:line" or "name: row 3", raw row or why there is none)
Record = tuple[str, dict[str, Any] | DataError]


KINDS = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".txt": "text",
    ".parquet": "parquet",
}
NAMED = 3  # files that are not read of a folder are named up to here
ROWS = 1000  # of a parquet file that are decoded at a time


class Files(NamedTuple):
    """The data files of a source, and what else is in its folder: reason -> names below it."""

    read: list[Path]
    left_out: dict[str, list[str]]


def data_files(place: Path, split: str) -> list[Path]:
    """A single file, or the files below a folder whose names say the split (all, if none does)."""
    return find_files(place, split).read


def find_files(place: Path, split: str) -> Files:
    """`data_files`, with what is left out: hidden and empty files, other kinds of files, other splits.

    Raises DataError where there is none, or files of several kinds.
    """
    if place.is_file():
        if not kind_of(place):
            raise DataError(
                f"{place}: unknown kind of file; expected {', '.join(KINDS)}, text also with .gz or .zst"
            )
        return Files([place], {})
    left_out: dict[str, list[str]] = {}

    def leave_out(reason: str, path: Path) -> None:
        left_out.setdefault(reason, []).append(path.name)

    try:
        below = sorted(_below(place, leave_out))
    except OSError as error:
        raise DataError(f"{error.filename or place}: can't be read: {error.strerror}") from None
    for path in below:
        if not kind_of(path):
            leave_out("no data file", path)
        elif not path.stat().st_size:  # as the parts that Spark writes without rows
            leave_out("empty", path)
    files = [path for path in below if kind_of(path) and path.stat().st_size]
    named = re.compile(rf"(^|[^a-zA-Z]){re.escape(split)}([^a-zA-Z]|$)")
    of_split = {path for path in files if named.search(str(path.relative_to(place)))}
    if not of_split and split != "train":
        raise DataError(f"{place}: no file of split {split!r}")
    read = [path for path in files if not of_split or path in of_split]
    for path in files:
        if of_split and path not in of_split:
            leave_out("of another split", path)
    kinds = {kind_of(path) for path in read}
    if len(kinds) != 1:
        found = ", ".join(sorted(map(str, kinds))) or "none"
        others = f" (not read: {described(left_out)})" if left_out else ""
        raise DataError(
            f"{place}: expected data files of one kind in this folder, found {found}{others}; name one file"
        )
    return Files(read, left_out)


def _below(
    folder: Path, leave_out: Callable[[str, Path], None], parents: tuple[str, ...] = ()
) -> Iterator[Path]:
    """The files below a folder, links followed, but for hidden ones.

    Hidden are names that begin with a dot (`.ipynb_checkpoints`), and folders that begin with two underscores
    (`__MACOSX`).
    """
    parents = (*parents, os.path.realpath(folder))
    for path in folder.iterdir():
        is_folder = path.is_dir()
        if path.name.startswith((".", "__") if is_folder else "."):
            leave_out("hidden", path)
        elif is_folder and os.path.realpath(path) not in parents:  # no link to a folder that holds it
            yield from _below(path, leave_out, parents)
        elif path.is_file():
            yield path
        elif not path.exists():
            leave_out("a link to nothing", path)


def described(left_out: dict[str, list[str]]) -> str:
    """What is left out of a folder, in words."""
    parts = []
    for reason, names in left_out.items():
        more = f" and {len(names) - NAMED:,} more" if len(names) > NAMED else ""
        parts.append(f"{', '.join(sorted(names)[:NAMED])}{more} ({reason})")
    return "; ".join(parts)


def kind_of(path: Path) -> str | None:
    """The kind of a data file by its name, None for any other file."""
    name = Path(path.name.lower())
    packed = name.suffix in (".gz", ".zst")
    kind = KINDS.get(Path(name.stem).suffix if packed else name.suffix)
    return None if packed and kind == "parquet" else kind


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


# --------------------------------------------------------------------------------------------- JSON


class _NoJson(ValueError):
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


# ---------------------------------------------------------------------------------------------- Hub


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
