"""A source (local file or folder, or Hub id) -> its raw rows, each with the place that it came from."""

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
from .files import described, find_files, kind_of

HUB_ID = re.compile(r"^[\w.-]+/[\w.-]+(:[\w.-]+)?$")


def records(source: Source, root: Path, streaming: bool = False) -> Iterator[Record]:
    """Raw rows of a source of any kind. Raises DataError where there is no source, or it can't be read.

    `streaming`: a Hub set is read over the network row by row, in place of a download into the cache.
    """
    place = locate(source, root)
    if isinstance(place, str):
        yield from hub_records(place, source.split, streaming)
        return
    for path in _files(source, place):
        yield from file_records(path)


def _files(source: Source, place: Path) -> list[Path]:
    """The files of a source; says which others its folder holds."""
    files = find_files(place, source.split)
    if files.left_out:
        say(f"{source.path}: not read: {described(files.left_out)}")
    return files.read


def text_records(source: Source, root: Path, piece: int = 8000) -> Iterator[Record]:
    """A text file in pieces of about `piece` characters, cut at blank lines, each a row {"text"}."""
    place = locate(source, root)
    if isinstance(place, str):
        raise DataError(f"{place}: format 'text' reads local .txt files; use 'text_rows' for a Hub set")
    for path in _files(source, place):
        if kind_of(path) != "text":
            raise DataError(
                f"{path}: format 'text' reads .txt files; use 'text_rows' for rows with a field 'text'"
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
    """The local path of a source if there is one, else its Hub id. Raises DataError if it can be neither."""
    path = root / source.path  # an absolute path stays itself
    if path.exists():
        return path
    if path.is_symlink():
        raise DataError(f"{path}: a link to nothing; expected a file or folder at {path.readlink()}")
    if HUB_ID.match(source.path) and not kind_of(path):
        return source.path
    names = [str(p.relative_to(root)) for p in islice(root.rglob("*"), 5000)] if root.is_dir() else []
    close = difflib.get_close_matches(source.path, names, n=3, cutoff=0.5)
    hint = (
        f"did you mean {' or '.join(close)}?"
        if close
        else "expected a file below it, or a Hub id as org/name"
    )
    raise DataError(f"{source.path}: no such file or folder below {root}; {hint}")


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
