"""The training text in parts, each small enough to be searched at once: token shards, and batches of rows."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..corpus.corpus import Corpus
from ..corpus.encoder import EncodedDocuments
from ..corpus.shards import TokenShards
from ..data.intake import Intake
from ..settings import Source
from .matches import Text
from .texts import read_texts

BATCH_CHARACTERS = 8_000_000  # of training rows that are encoded and searched at a time
MAX_ROWS = 100_000


class Part(NamedTuple):
    """A part of the training text.

    Attributes:
        origin: where its documents are from: `source`, and `shard` (a file) if it is one.
        first: number of its first document in `origin`.
        documents, tokens: numbers of them.
        load: returns the text; a shard is mapped only while it is used.
    """

    origin: dict[str, str]
    first: int
    documents: int
    tokens: int
    load: Callable[[], Text]


def corpus_parts(corpus: Corpus) -> list[Part]:
    """Returns the shards of the training documents of a corpus."""
    sources = [source["path"] for source in corpus.counts["train"]["sources"] if source["tokens"]]
    return [
        Part(
            {"source": source, "shard": str(stream.folder / shard["file"])},
            0,
            shard["documents"],
            shard["tokens"],
            partial(_shard, stream, number),
        )
        for source, stream in zip(sources, corpus.train, strict=True)
        for number, shard in enumerate(stream.index["shards"])
    ]


def _shard(stream: TokenShards, number: int) -> Text:
    return Text(*stream.shard(number))


def row_parts(
    sources: Sequence[Source],
    root: Path,
    encode: Callable[[Sequence[str]], EncodedDocuments],
    *,
    intake: Intake,
) -> Iterator[Part]:
    """Yields batches of the training rows of each source. Raises DataError as `texts.read_texts` does."""
    for source in sources:
        first = 0
        for texts in _batches(read_texts(source, root, intake)):
            ids, lengths = encode(texts)
            load = partial(Text, ids, np.cumsum(lengths) - lengths)
            yield Part({"source": source.path}, first, len(texts), len(ids), load)
            first += len(texts)


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    characters = 0
    for text in texts:
        batch.append(text)
        characters += len(text)
        if characters >= BATCH_CHARACTERS or len(batch) >= MAX_ROWS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


class Origins:
    """Finds out which part a document is from, by its number among the documents of all parts."""

    def __init__(self) -> None:
        self.documents = 0
        self._parts: list[tuple[dict[str, str], int]] = []
        self._first: list[int] = []

    def add(self, part: Part) -> None:
        self._parts.append((part.origin, part.first))
        self._first.append(self.documents)
        self.documents += part.documents

    def of(self, document: int) -> dict[str, Any]:
        """Returns `source`, `shard` (null for rows), and `document`, its number in there."""
        number = bisect_right(self._first, document) - 1
        origin, first = self._parts[number]
        place = document - self._first[number] + first
        return {"source": origin["source"], "shard": origin.get("shard"), "document": place}
