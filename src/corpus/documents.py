"""Reads documents in batches, in the background while earlier batches are encoded."""

from __future__ import annotations

import hashlib
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import NamedTuple, TypeVar

from ..data.files import data_files
from ..data.intake import Intake
from ..data.reading import Skip, outcomes
from ..data.records import locate
from ..data.sources import DOCUMENTS
from ..errors import DataError
from ..settings import Source
from .volume import expected_bytes

T = TypeVar("T")

MAX_DOCUMENTS = 1000  # per batch


class Document(NamedTuple):
    """A text, its size in UTF-8 bytes, and a hash that identifies equal texts."""

    text: str
    size: int
    key: bytes


@dataclass
class Batch:
    """Documents read from one source.

    Attributes:
        source: index of the source.
        rows: number of raw rows read from the source so far, including earlier batches.
        skipped: number of valid but unusable documents in this batch, by reason.
        bad_rows: errors of this batch's bad rows, each with file and line.
        ignored: number of rows by each field that the format does not read.
        last: whether this is the source's last batch.
    """

    source: int
    rows: int = 0
    documents: list[Document] = field(default_factory=list)
    _: KW_ONLY
    skipped: Counter[str] = field(default_factory=Counter)
    bad_rows: list[str] = field(default_factory=list)
    ignored: Counter[str] = field(default_factory=Counter)
    last: bool = False

    @property
    def bytes(self) -> int:
        return sum(document.size for document in self.documents)


def read_batches(
    sources: Sequence[Source], root: Path, size: int, *, first: int = 0, rows: int = 0
) -> Iterator[Batch]:
    """Yields all documents of the sources from index `first`, without that source's first `rows` raw rows.

    `size`: bytes of text after which a batch ends.
    Raises DataError if a source can't be read.
    """
    for number in range(first, len(sources)):
        source, filled = sources[number], 0
        batch = Batch(number)
        start = rows if number == first else 0
        read_rows = outcomes(source, root, DOCUMENTS[source.format], intake=Intake(), start=start)
        for read, result, ignored in read_rows:
            if len(batch.documents) >= MAX_DOCUMENTS or filled >= size:
                yield batch
                batch, filled = Batch(number), 0
            batch.rows = read
            batch.ignored.update(ignored)
            if isinstance(result, DataError):
                batch.bad_rows.append(str(result))
                continue
            for row in result:
                if isinstance(row, Skip):
                    batch.skipped[str(row)] += 1
                    continue
                data = row.encode()
                filled += len(data)
                key = hashlib.blake2b(data, digest_size=16).digest()
                batch.documents.append(Document(row, len(data), key))
        batch.last = True
        yield batch


def expected_megabytes(sources: Sequence[Source], root: Path) -> float | None:
    """Estimates the MB of text in the sources; None if a source has `skip` or `limit`, or is on the Hub."""
    total = 0.0
    for source in sources:
        place = locate(source, root)
        if isinstance(place, str) or source.skip or source.limit:
            return None
        total += sum(map(expected_bytes, data_files(place, source.split)))
    return total / 1e6


def ahead(items: Iterable[T], count: int = 4) -> Iterator[T]:
    """Yields the same items; a background thread computes up to `count` of them in advance."""
    iterator, end = iter(items), object()
    with ThreadPoolExecutor(1) as thread:
        pending = deque(thread.submit(next, iterator, end) for _ in range(count))
        while (item := pending.popleft().result()) is not end:
            pending.append(thread.submit(next, iterator, end))
            yield item  # type: ignore[misc]  # every other object is an item
