"""Converts raw rows of sources to rows of one kind, and reports the rows that were not used."""

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
from .intake import BAD_ROWS, Intake

T = TypeVar("T", covariant=True)
S = TypeVar("S")


class Skip(Exception):
    """Raised for a valid but unusable row, which is skipped and counted under the exception's message."""


def attempt(make: Callable[..., S], *values: Any, **options: Any) -> S | Skip:
    """Returns `make(*values, **options)`, or the Skip that it raises."""
    try:
        return make(*values, **options)
    except Skip as reason:
        return reason


class Format(NamedTuple, Generic[T]):
    """Reads raw rows of one format.

    Attributes:
        parse: converts a raw row to one or several rows.
        records: yields the raw rows of a source.
        fields: names of the fields that `parse` reads; inner fields as `messages.role`.
    """

    parse: Callable[[dict[str, Any]], T | list[T | Skip]]
    records: Callable[[Source, Path], Iterator[Record]]
    fields: frozenset[str]


class Outcome(NamedTuple, Generic[T]):
    """Result of parsing a raw row: rows and reasons to skip, or an error with file and line.

    `number`: number of the source's raw rows read so far, including this one; `ignored`: names of its
    non-empty fields that the format does not read.
    """

    number: int
    result: list[T | Skip] | DataError
    ignored: list[str]


def stream(
    sources: Sequence[Source], root: Path, formats: Mapping[str, Format[T]], *, kind: str, intake: Intake
) -> Iterator[T]:
    """Yields the rows of all sources in order; skipped rows are reported and counted in `intake`.

    `kind`: plural noun for the rows in error messages, for example "dialogues".
    Raises DataError for an unknown format, a source without usable rows, and too many bad rows.
    """
    check_formats(sources, formats, kind)
    for source in sources:
        yield from _rows(source, root, formats[source.format], intake=intake)


def _rows(source: Source, root: Path, format: Format[T], *, intake: Intake) -> Iterator[T]:
    usable = 0
    bad_rows: list[str] = []
    skipped: Counter[str] = Counter()
    ignored: Counter[str] = Counter()
    for outcome in outcomes(source, root, format, intake=intake):
        if isinstance(outcome.result, DataError):
            bad_rows.append(str(outcome.result))
            intake.add_bad_row(bad_rows[-1])
            continue
        ignored.update(outcome.ignored)
        for row in outcome.result:
            if isinstance(row, Skip):
                skipped[str(row)] += 1
            else:
                usable += 1
                yield row
    intake.skipped += skipped
    intake.ignored += ignored
    report_outcome(source, usable, skipped, bad_rows=bad_rows, ignored=ignored)


def check_formats(sources: Sequence[Source], formats: Mapping[str, Any], kind: str) -> None:
    """Raises DataError for a source with a format that is not in `formats`; `kind` as in `stream`."""
    for source in sources:
        if source.format not in formats:
            close = difflib.get_close_matches(source.format, formats, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise DataError(
                f"{source.path}: format {source.format!r} cannot be used for {kind}{hint}; "
                f"expected one of {', '.join(formats)}"
            )


def outcomes(
    source: Source, root: Path, format: Format[T], *, intake: Intake, start: int = 0
) -> Iterator[Outcome[T]]:
    """Parses each raw row of a source after the first `start`.

    Raises DataError if the source itself can't be read.
    """
    end = None if source.limit is None else source.skip + source.limit
    first = source.skip + start
    for number, (where, record) in enumerate(islice(format.records(source, root), first, end), start + 1):
        try:
            if isinstance(record, DataError):
                raise record
            parsed = attempt(format.parse, record)
            rows = parsed if isinstance(parsed, list) else [parsed]
            for row in rows:
                intake.check(row)
            yield Outcome(number, rows, unread_fields(record, format.fields))
        except DataError as error:
            yield Outcome(number, DataError(f"{where}: {error}"), [])


def report_outcome(
    source: Source, usable: int, skipped: Counter[str], *, bad_rows: Sequence[str], ignored: Mapping[str, int]
) -> None:
    """Reports a source's skipped rows, bad rows and unused fields. Raises DataError if no row is usable."""
    reasons = ", ".join(f"{reason} ({count:,})" for reason, count in skipped.items())
    if not usable:
        bad = [f"{len(bad_rows):,} bad, the first: {bad_rows[0]}"] if bad_rows else []
        why = "; ".join([*filter(None, [reasons]), *bad])
        if source.skip and not why:
            why = f"it has at most {source.skip:,} rows, all of which `skip` leaves out"
        raise DataError(
            f"{source.path}: no usable row{why and f' ({why})'}; expected rows of format {source.format!r}"
        )
    if skipped:
        say(f"{source.path}: {usable:,} rows, {skipped.total():,} skipped: {reasons}")
    if bad_rows:
        rows = "row" if len(bad_rows) == 1 else "rows"
        say(f"{source.path}: {len(bad_rows):,} bad {rows} skipped, listed in {BAD_ROWS}")
    if ignored:
        names = sorted(ignored, key=lambda name: -ignored[name])
        fields = named(f"{short_name(name)} ({ignored[name]:,} rows)" for name in names)
        say(f"{source.path}: fields that format {source.format!r} does not use: {fields}")
