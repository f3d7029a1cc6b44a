"""From a source (local file or folder, or Hub id) to rows: where it is, and what becomes of its raw rows."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

from ..config import Source
from ..console import say
from ..errors import DataError
from .files import Record, data_files, file_records, hub_records, kind_of, stream

T = TypeVar("T", covariant=True)
S = TypeVar("S")
HUB_ID = re.compile(r"^[\w.-]+/[\w.-]+(:[\w.-]+)?$")


class Skip(Exception):
    """A sound row that can't be used, for the reason given: left out and counted."""


def attempt(make: Callable[..., S], *values: Any) -> S | Skip:
    """`make(*values)`, or the reason why it skips: for one of several rows made from a raw row."""
    try:
        return make(*values)
    except Skip as reason:
        return reason


class Format(NamedTuple, Generic[T]):
    """How raw rows become ours: `records` yields the raw rows, `parse` makes one row of each, or several."""

    parse: Callable[[dict[str, Any]], T | list[T | Skip]]
    records: Callable[[Source, Path], Iterator[Record]]


class Stream(Iterator[T]):
    """The rows of several sources one after the other; `skipped` counts what was left out so far, by reason.

    Raises DataError, naming file and line, for a broken row, an unknown format, a source without rows.
    """

    def __init__(self, sources: Sequence[Source], root: Path, formats: Mapping[str, Format[T]]) -> None:
        self.skipped: Counter[str] = Counter()
        check_formats(sources, formats)
        self._rows = (row for source in sources for row in self._read(source, root, formats[source.format]))

    def __next__(self) -> T:
        return next(self._rows)

    def _read(self, source: Source, root: Path, format: Format[T]) -> Iterator[T]:
        skipped: Counter[str] = Counter()
        made = 0
        for _, outcome in outcomes(source, root, format):
            if isinstance(outcome, DataError):
                raise outcome
            if isinstance(outcome, Skip):
                skipped[str(outcome)] += 1
            else:
                made += 1
                yield outcome
        self.skipped += skipped
        tell(source, made, skipped)


def check_formats(sources: Sequence[Source], formats: Mapping[str, Any]) -> None:
    """Raises DataError for a source whose format is not among `formats`."""
    for source in sources:
        if source.format not in formats:
            close = difflib.get_close_matches(source.format, formats, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            allowed = ", ".join(formats)
            raise DataError(
                f"{source.path}: format {source.format!r} is not for this{hint}; allowed: {allowed}"
            )


def outcomes(
    source: Source, root: Path, format: Format[T], start: int = 0
) -> Iterator[tuple[int, T | Skip | DataError]]:
    """What becomes of each raw row of a source: a row, or several, a Skip, or an error with file and line.

    With each comes how many raw rows were read by then, those passed over included; `start` passes over so
    many. Raises DataError where the source itself can't be read.
    """
    end = None if source.limit is None else source.skip + source.limit
    first = source.skip + start
    for number, (where, record) in enumerate(islice(format.records(source, root), first, end), start + 1):
        try:
            if isinstance(record, DataError):
                raise record
            parsed = attempt(format.parse, record)
        except DataError as error:
            yield number, DataError(f"{where}: {error}")
            continue
        for row in parsed if isinstance(parsed, list) else [parsed]:
            yield number, row


def tell(source: Source, made: int, skipped: Counter[str]) -> None:
    """Says what was left out of a source. Raises DataError where nothing is left."""
    if not made:
        raise DataError(f"{source.path}: no usable row; expected rows of format {source.format!r}")
    if skipped:
        reasons = ", ".join(f"{reason} ({count:,})" for reason, count in skipped.items())
        say(f"{source.path}: {made:,} rows, {skipped.total():,} left out: {reasons}")


# ----------------------------------------------------------------------------------- fields of raw rows


def text_field(row: Mapping[str, Any], name: str) -> str:
    """A field that must be text. Raises DataError where it is missing or something else."""
    value = row.get(name)
    if value is None:
        raise DataError(f"field {name!r} is missing; expected text (fields: {', '.join(map(str, row))})")
    if not isinstance(value, str):
        raise DataError(f"field {name!r} is {type(value).__name__}; expected text")
    return checked(value, name)


def checked(value: str, name: str) -> str:
    """Text that can be written as UTF-8. Raises DataError for half of a surrogate pair."""
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise DataError(
                f"field {name!r} holds half of a surrogate pair; expected valid Unicode"
            ) from None
    return value


def field(row: Mapping[str, Any], name: str, kind: type | tuple[type, ...]) -> Any:
    """A field of the given type(s), or None where it is missing. Raises DataError for another type."""
    value = row.get(name)
    if value is not None and not isinstance(value, kind):
        kinds = kind if isinstance(kind, tuple) else (kind,)
        expected = " or ".join(k.__name__ for k in kinds)
        raise DataError(f"field {name!r} is {type(value).__name__}; expected {expected}")
    return value


# ------------------------------------------------------------------------------- where raw rows are


def records(source: Source, root: Path, streaming: bool = False) -> Iterator[Record]:
    """Raw rows of a source of any kind. Raises DataError where there is no source, or it can't be read.

    `streaming`: a Hub set is read over the network row by row, in place of a download into the cache.
    """
    place = locate(source, root)
    if isinstance(place, str):
        yield from hub_records(place, source.split, streaming)
        return
    for path in data_files(place, source.split):
        yield from file_records(path)


def sound(rows: Iterable[Record]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Raw rows none of which may be broken. Raises DataError at the first that is, with file and line."""
    for where, record in rows:
        if isinstance(record, DataError):
            raise DataError(f"{where}: {record}")
        yield where, record


def text_records(source: Source, root: Path, piece: int = 8000) -> Iterator[Record]:
    """A text file in pieces of about `piece` characters, cut at blank lines, each a row {"text"}."""
    place = locate(source, root)
    if isinstance(place, str):
        raise DataError(f"{place}: format 'text' reads local .txt files; use 'text_rows' for a Hub set")
    for path in data_files(place, source.split):
        if kind_of(path) != "text":
            raise DataError(
                f"{path}: format 'text' reads .txt files; use 'text_rows' for rows with a field 'text'"
            )
        paragraphs: list[str] = []
        for row in stream(path, "text", sample_by="paragraph"):
            paragraphs.append(row["text"])
            if sum(map(len, paragraphs)) >= piece:
                yield str(path), {"text": "\n\n".join(paragraphs)}
                paragraphs = []
        if paragraphs:
            yield str(path), {"text": "\n\n".join(paragraphs)}


def locate(source: Source, root: Path) -> Path | str:
    """The local path of a source if there is one, else its Hub id. Raises DataError if it can be neither."""
    path = root / source.path  # an absolute path stays itself
    if path.exists():
        return path
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
