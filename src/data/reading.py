"""From a source (local file or folder, or Hub id) to rows: where it is, and what becomes of its raw rows."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

from ..console import say
from ..errors import DataError
from ..settings import Source
from .files import Record, described, file_records, find_files, hub_records, kind_of, paragraphs
from .intake import REFUSED, Intake

T = TypeVar("T", covariant=True)
S = TypeVar("S")
NOTHING: tuple[Any, ...] = (None, "", [], {}, ())  # what a field without a value holds
NAMED = 8  # fields that are not used are named up to here
WIDEST = 100  # characters of a field's name that are shown
TRUTH = {"true": True, "false": False, "": None}  # as a CSV file, whose fields are text, says it
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
    """How raw rows become ours.

    Attributes:
        parse: makes one row of a raw one, or several.
        records: yields the raw rows of a source.
        fields: names that `parse` reads; of fields in messages or sections as `messages.role`.
    """

    parse: Callable[[dict[str, Any]], T | list[T | Skip]]
    records: Callable[[Source, Path], Iterator[Record]]
    fields: frozenset[str]


class Outcome(NamedTuple, Generic[T]):
    """What becomes of a raw row: rows and reasons to skip, or an error with file and line.

    `number`: raw rows of the source that were read so far, this one included; `ignored`: names of its fields
    that hold something and that the format does not read.
    """

    number: int
    made: list[T | Skip] | DataError
    ignored: list[str]


def stream(
    sources: Sequence[Source], root: Path, formats: Mapping[str, Format[T]], *, intake: Intake
) -> Iterator[T]:
    """The rows of several sources one after the other; what is left out is counted in `intake` and reported.

    Raises DataError for an unknown format, a source without rows, and a bad row that `intake` does not allow.
    """
    check_formats(sources, formats)
    for source in sources:
        yield from _rows(source, root, formats[source.format], intake=intake)


def _rows(source: Source, root: Path, format: Format[T], *, intake: Intake) -> Iterator[T]:
    made = 0
    refused: list[str] = []
    skipped: Counter[str] = Counter()
    ignored: Counter[str] = Counter()
    for outcome in outcomes(source, root, format, intake=intake):
        if isinstance(outcome.made, DataError):
            refused.append(str(outcome.made))
            intake.refuse(refused[-1])
            continue
        ignored.update(outcome.ignored)
        for row in outcome.made:
            if isinstance(row, Skip):
                skipped[str(row)] += 1
            else:
                made += 1
                yield row
    intake.skipped += skipped
    intake.ignored += ignored
    tell(source, made, skipped, refused=refused, ignored=ignored)


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
    source: Source, root: Path, format: Format[T], *, intake: Intake, start: int = 0
) -> Iterator[Outcome[T]]:
    """What becomes of each raw row of a source, behind the first `start`.

    Raises DataError where the source itself can't be read.
    """
    end = None if source.limit is None else source.skip + source.limit
    first = source.skip + start
    for number, (where, record) in enumerate(islice(format.records(source, root), first, end), start + 1):
        try:
            if isinstance(record, DataError):
                raise record
            parsed = attempt(format.parse, record)
            made = parsed if isinstance(parsed, list) else [parsed]
            for row in made:
                intake.check(row)
            yield Outcome(number, made, unread_fields(record, format.fields))
        except DataError as error:
            yield Outcome(number, DataError(f"{where}: {error}"), [])


def tell(
    source: Source, made: int, skipped: Counter[str], *, refused: Sequence[str], ignored: Mapping[str, int]
) -> None:
    """Says what was left out of a source, of bad rows why. Raises DataError where nothing is left."""
    reasons = ", ".join(f"{reason} ({count:,})" for reason, count in skipped.items())
    if not made:
        bad = [f"{len(refused):,} bad, the first: {refused[0]}"] if refused else []
        why = "; ".join([*filter(None, [reasons]), *bad])
        raise DataError(
            f"{source.path}: no usable row{why and f' ({why})'}; expected rows of format {source.format!r}"
        )
    if skipped:
        say(f"{source.path}: {made:,} rows, {skipped.total():,} left out: {reasons}")
    if refused:
        say(f"{source.path}: {len(refused):,} bad rows left out; {REFUSED} lists them")
    if ignored:
        names = sorted(ignored, key=lambda name: -ignored[name])
        fields = _named(f"{_short(name)} ({ignored[name]:,} rows)" for name in names)
        say(f"{source.path}: fields that format {source.format!r} does not use: {fields}")


def _named(names: Iterable[str]) -> str:
    """A few names for a message, and how many more there are."""
    names = list(names)
    more = f" and {len(names) - NAMED:,} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def _short(name: object) -> str:
    return f"{name!s:.{WIDEST}}" or "one without a name"


# ----------------------------------------------------------------------------------- fields of raw rows


def unread_fields(row: Mapping[str, Any], fields: frozenset[str]) -> list[str]:
    """Names of a raw row's fields that hold something and are not among `fields`; inner ones as `a.b`."""
    unread: dict[str, None] = {}
    for name, value in row.items():
        if name not in fields:
            if value not in NOTHING:
                unread[name] = None
            continue
        for part in value if isinstance(value, list | tuple) else (value,):
            if isinstance(part, dict):
                inner = (f"{name}.{key}" for key, held in part.items() if held not in NOTHING)
                unread.update((key, None) for key in inner if key not in fields)
    return list(unread)


def text_field(row: Mapping[str, Any], name: str) -> str:
    """A field that must be text. Raises DataError where it is missing or something else."""
    value = row.get(name)
    if value is None:
        raise DataError(f"field {name!r} is missing; expected text (fields: {_named(map(_short, row))})")
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
    if isinstance(value, str) and kind is not str:
        value = TRUTH.get(value.lower(), value)
    if value is not None and not isinstance(value, kind):
        kinds = kind if isinstance(kind, tuple) else (kind,)
        expected = " or ".join(k.__name__ for k in kinds)
        raise DataError(f"field {name!r} is {type(value).__name__}; expected {expected}")
    return checked(value, name) if isinstance(value, str) else value


# ------------------------------------------------------------------------------- where raw rows are


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
