"""Reads the raw rows of a source (local file or folder, or Hub id), each with its location."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from ..console import say
from ..errors import DataError
from ..settings import Source
from .file_rows import Record, file_records, paragraphs
from .files import describe_skipped, find_files, kind_of

HUB_ID = re.compile(r"^[\w.-]+/[\w.-]+(:[\w.-]+)?$")


def records(source: Source, root: Path, streaming: bool = False) -> Iterator[Record]:
    """Yields the raw rows of a source. Raises DataError if it does not exist or can't be read.

    `streaming`: whether a data set on the Hub is read row by row over the network instead of downloaded.
    """
    place = locate(source, root)
    if isinstance(place, str):
        yield from hub_records(place, source.split, streaming)
        return
    for path in source_files(source, place):
        yield from file_records(path)


def source_files(source: Source, place: Path) -> list[Path]:
    """Returns the files of a source; reports the skipped files of its folder."""
    files = find_files(place, source.split)
    if files.skipped:
        say(f"{source.path}: skipped files: {describe_skipped(files.skipped)}")
    return files.read


def text_records(source: Source, root: Path, piece: int = 8000) -> Iterator[Record]:
    """Yields rows {"text"}: parts of a text file of about `piece` characters, split at blank lines."""
    place = locate(source, root)
    if isinstance(place, str):
        raise DataError(
            f"{place}: format 'text' reads local .txt files only; use 'text_rows' for a data set on the Hub"
        )
    for path in source_files(source, place):
        if kind_of(path) != "text":
            raise DataError(
                f"{path}: format 'text' reads .txt files only; use 'text_rows' for rows with a field 'text'"
            )
        parts: list[str] = []
        for paragraph in paragraphs(path):
            parts.append(paragraph)
            if sum(map(len, parts)) >= piece:
                yield str(path), {"text": "\n\n".join(parts)}
                parts = []
        if parts:
            yield str(path), {"text": "\n\n".join(parts)}


def locate(source: Source, root: Path) -> Path | str:
    """Returns the local path of a source if it exists, else its Hub id. Raises DataError if it is neither."""
    path = root / source.path  # absolute paths ignore `root`
    if path.exists():
        return path
    if path.is_symlink():
        raise DataError(f"{path}: broken link; expected a file or folder at {path.readlink()}")
    if HUB_ID.match(source.path) and not kind_of(path):
        return source.path
    names = [str(p.relative_to(root)) for p in islice(root.rglob("*"), 5000)] if root.is_dir() else []
    close = difflib.get_close_matches(source.path, names, n=3, cutoff=0.5)
    hint = (
        f"did you mean {' or '.join(close)}?"
        if close
        else "expected a file or folder below it, or a Hub id org/name"
    )
    raise DataError(f"{source.path}: does not exist below {root}; {hint}")


def hub_records(name: str, split: str, streaming: bool) -> Iterator[Record]:
    """Yields the rows of a data set on the Hub, `org/name` or `org/name:config`."""
    import datasets

    repository, _, config = name.partition(":")
    number = 0
    try:
        rows = datasets.load_dataset(repository, config or None, split=split, streaming=streaming)
        for number, row in enumerate(rows, 1):
            yield f"{name}: row {number}", row
    except Exception as error:  # the errors of `datasets` have no common base class
        where = f" after row {number}" if number else ""
        raise DataError(
            f"{name}: does not exist below the data folder, and reading it from the Hub failed{where} "
            f"({type(error).__name__}: {error})"
        ) from None
