"""Documents of a source in batches, read while others are encoded."""

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

MOST = 1000  # documents of a batch


class Document(NamedTuple):
    """A text, its size in UTF-8 bytes, and a hash by which equal ones are known."""

    text: str
    size: int
    key: bytes


@dataclass
class Batch:
    """What was read of a source since the batch before.

    Attributes:
        source: its number.
        rows: raw rows of the source that were read so far, earlier batches included.
        skipped: documents of these rows that can't be used, by reason.
        refused: why rows are broken, each with file and line.
        ignored: rows by each field that their format does not read.
        last: nothing follows of this source.
    """

    source: int
    rows: int = 0
    documents: list[Document] = field(default_factory=list)
    _: KW_ONLY
    skipped: Counter[str] = field(default_factory=Counter)
    refused: list[str] = field(default_factory=list)
    ignored: Counter[str] = field(default_factory=Counter)
    last: bool = False

    @property
    def bytes(self) -> int:
        return sum(document.size for document in self.documents)


def read_batches(
    sources: Sequence[Source], root: Path, size: int, *, first: int = 0, rows: int = 0
) -> Iterator[Batch]:
    """All documents from source `first` on, of which `rows` raw rows are passed over.

    `size`: bytes of text after which a batch ends.
    Raises DataError where a source can't be read or its format is not one of documents.
    """
    for number in range(first, len(sources)):
        source, filled = sources[number], 0
        batch = Batch(number)
        passed = rows if number == first else 0
        read_rows = outcomes(source, root, DOCUMENTS[source.format], intake=Intake(), start=passed)
        for read, made, ignored in read_rows:
            if len(batch.documents) >= MOST or filled >= size:
                yield batch
                batch, filled = Batch(number), 0
            batch.rows = read
            batch.ignored.update(ignored)
            if isinstance(made, DataError):
                batch.refused.append(str(made))
                continue
            for row in made:
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
    """About how much text there is to read; None where a source says a limit, or is on the Hub."""
    total = 0.0
    for source in sources:
        place = locate(source, root)
        if isinstance(place, str) or source.skip or source.limit:
            return None
        total += sum(map(expected_bytes, data_files(place, source.split)))
    return total / 1e6


def ahead(items: Iterable[T], count: int = 4) -> Iterator[T]:
    """The same items, of which a thread makes up to `count` before they are asked for."""
    iterator, end = iter(items), object()
    with ThreadPoolExecutor(1) as thread:
        made = deque(thread.submit(next, iterator, end) for _ in range(count))
        while (item := made.popleft().result()) is not end:
            made.append(thread.submit(next, iterator, end))
            yield item  # type: ignore[misc]  # anything but the end is an item
