"""From the raw rows of sources to rows of one kind: what becomes of each, and what is said of the rest."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

from ..console import say
from ..errors import DataError
from ..settings import Source
from .fields import named, short_name, unread_fields
from .file_rows import Record
from .intake import REFUSED, Intake

T = TypeVar("T", covariant=True)
S = TypeVar("S")


class Skip(Exception):
    """A sound row that can't be used, for the reason given: left out and counted."""


def attempt(make: Callable[..., S], *values: Any, **options: Any) -> S | Skip:
    """`make(*values, **options)`, or the reason why it skips: for one of several rows made from a raw row."""
    try:
        return make(*values, **options)
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
        fields = named(f"{short_name(name)} ({ignored[name]:,} rows)" for name in names)
        say(f"{source.path}: fields that format {source.format!r} does not use: {fields}")
