"""Writing a corpus: documents of any mix of sources to token shards, a part of them held out.

Reading, encoding and writing go on side by side. Whenever a shard is full, all that was written is noted in a
journal; a killed preparation goes on from there.
"""

from __future__ import annotations

import json
from collections import Counter, deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import reduce
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from ..artifact import write_json
from ..console import track
from ..data.held_out import place_of
from ..data.intake import Intake
from ..data.reading import check_formats, tell
from ..data.settings import CorpusSettings
from ..data.sources import DOCUMENTS
from ..errors import DataError
from ..model.checkpoint import tokenizer_hash
from ..settings import Source
from .corpus import COUNTS, PARTS, Part
from .documents import Batch, ahead, expected_megabytes, read_batches
from .encoder import DocumentEncoder, EncodedDocuments
from .journal import Journal
from .shards import ShardWriter
from .summary import show_summary

JOURNAL = "corpus.sqlite"
BATCH_BYTES = 4_000_000  # of text that is encoded at a time
ENCODERS = 2  # batches under way: all cores work at one while the ids of the other are copied
SHORTEST = 16  # tokens; documents up to here share a bar of the histogram, then those up to twice as many


def write_corpus(
    settings: CorpusSettings, seed: int, tokenizer: Any, *, root: Path, folder: Path, journal: Path
) -> dict[str, Any]:
    """Writes the token shards of all sources below `folder`, unless they stand already.

    Each part of a source is a stream of its own: `folder/train/000` is what the first source of `documents`
    trains, `folder/validation/000` what the first of `validation`, or without such of `documents`, holds out.

    Args:
        seed: with the text, decides what a `validation_share` holds out; equal documents are on one side.
        root: of the sources' paths.
        journal: a file that a killed preparation goes on from; of no use afterwards.

    Returns:
        For "train" and "validation" `documents`, `tokens`, `bytes`, `bytes_per_token`, `lengths` (documents
        by their tokens: up to 16, 32, …) and `sources` (`path`, `weight`, `folder`, `documents`, `tokens`,
        `bytes` of each); beside them `duplicates` and `bad_rows` (counts), `skipped` (documents by reason) and
        `ignored_fields` (documents by each field that is not used).

    Raises:
        DataError: a row is broken and may not be left out, a source can't be read, a part has no document.
    """
    if (folder / COUNTS).is_file():
        standing: dict[str, Any] = json.loads((folder / COUNTS).read_text(encoding="utf-8"))
        return standing
    check_formats([*settings.validation, *settings.documents], DOCUMENTS)
    with Journal(journal) as noted:
        preparation = _Preparation(settings, seed, tokenizer, root=root, folder=folder, journal=noted)
        preparation.write()
    counts = preparation.finish(tokenizer_hash(tokenizer))
    preparation.intake.write(folder)
    write_json(folder / COUNTS, counts)
    show_summary(counts)
    return counts


class _Stream:
    """One part of one source: its writer, and what is counted of it."""

    def __init__(self, folder: Path, name: str, source: Source, *, vocab_size: int, counts: Any) -> None:
        self.name, self.source, self.counts = name, source, counts
        self.writer = ShardWriter(folder / name, vocab_size, counts["shards"])

    def append(self, encoded: EncodedDocuments) -> None:
        self.writer.append(encoded)
        sizes = np.ceil(np.log2(np.maximum(1, encoded.lengths / SHORTEST))).astype(np.int64)
        self.counts["lengths"] = _added(self.counts["lengths"], np.bincount(sizes).tolist())

    def summary(self) -> dict[str, Any]:
        return {
            "path": self.source.path,
            "weight": getattr(self.source, "weight", 1.0),
            "folder": self.name,
            "documents": self.counts["documents"],
            "tokens": sum(shard["tokens"] for shard in self.writer.shards),
            "bytes": self.counts["bytes"],
        }


class _Preparation:
    """One preparation: sources in order, held-out ones first, so that no other document equals theirs.

    `state` is all that is known of it; the journal keeps a copy.
    """

    def __init__(
        self,
        settings: CorpusSettings,
        seed: int,
        tokenizer: Any,
        *,
        root: Path,
        folder: Path,
        journal: Journal,
    ) -> None:
        self._settings, self._seed, self._root, self._journal = settings, seed, root, journal
        self._sources: list[Source] = [*settings.validation, *settings.documents]
        self._encode = DocumentEncoder(tokenizer)
        self.state: dict[str, Any] = journal.state or {
            "source": 0,  # the one being read
            "rows": 0,  # that were read of it
            "usable": [0] * len(self._sources),
            "skipped": [{} for _ in self._sources],
            "ignored": [{} for _ in self._sources],
            "duplicates": 0,
            "bad_rows": [],
            "streams": {},
        }
        self.intake = Intake(settings.max_bad_rows, refused=self.state["bad_rows"])
        self._streams: dict[tuple[int, Part], _Stream] = {}
        for number, source in enumerate(self._sources):
            held_out = number < len(settings.validation)
            parts = ("validation",) if held_out else PARTS if settings.validation_share else ("train",)
            for part in parts:
                name = f"{part}/{number if held_out else number - len(settings.validation):03d}"
                empty: dict[str, Any] = {"documents": 0, "bytes": 0, "lengths": [], "shards": []}
                counts = self.state["streams"].setdefault(name, empty)
                self._streams[number, part] = _Stream(
                    folder, name, source, vocab_size=len(tokenizer), counts=counts
                )

    def write(self) -> None:
        """Reads everything that is not read yet and writes it, shard by shard."""
        batches = track(
            ahead(self._batches()),
            "tokenizing",
            total=expected_megabytes(self._sources, self._root),
            unit="MB",
            amount=lambda batch: batch.bytes / 1e6,
            done=sum(stream.counts["bytes"] for stream in self._streams.values()) / 1e6,
        )
        under_way: deque[dict[_Stream, Future[EncodedDocuments]]] = deque()
        with ThreadPoolExecutor(ENCODERS) as threads:
            for batch in batches:
                texts = self._take(batch)
                under_way.append({stream: threads.submit(self._encode, texts[stream]) for stream in texts})
                tokens = sum(stream.writer.open_tokens for stream in self._streams.values())
                full = tokens >= self._settings.shard_tokens
                while len(under_way) > (0 if full or batch.last else ENCODERS):
                    for stream, encoded in under_way.popleft().items():
                        stream.append(encoded.result())
                if full:  # what is noted has been written: nothing is under way
                    for stream in self._streams.values():
                        stream.writer.seal()
                    self._journal.commit(self.state)

    def _batches(self) -> Iterator[Batch]:
        size = min(BATCH_BYTES, self._settings.shard_tokens)  # a token is a byte or more: none is overfull
        return read_batches(
            self._sources, self._root, size, first=self.state["source"], rows=self.state["rows"]
        )

    def _take(self, batch: Batch) -> dict[_Stream, list[str]]:
        """Counts a batch; the texts of it that are no duplicates, by the stream that they go to."""
        state, number = self.state, batch.source
        for reason in batch.refused:
            self.intake.refuse(reason)
        state["source"], state["rows"] = (number + 1, 0) if batch.last else (number, batch.rows)
        for name, counted in (("skipped", batch.skipped), ("ignored", batch.ignored)):
            state[name][number] = dict(Counter(state[name][number]) + counted)
        state["usable"][number] += len(batch.documents)
        if batch.last:
            skipped, ignored = (Counter(state[name][number]) for name in ("skipped", "ignored"))
            tell(self._sources[number], state["usable"][number], skipped, refused=(), ignored=ignored)
        texts: dict[_Stream, list[str]] = {}
        for document in batch.documents:
            if self._settings.deduplicate and not self._journal.is_new(document.key):
                state["duplicates"] += 1
                continue
            stream = self._streams[number, self._part(number, document.text)]
            stream.counts["documents"] += 1
            stream.counts["bytes"] += document.size
            texts.setdefault(stream, []).append(document.text)
        return texts

    def _part(self, source: int, text: str) -> Part:
        if source < len(self._settings.validation):
            return "validation"
        if not self._settings.validation_share:
            return "train"
        return "validation" if place_of(text, self._seed) < self._settings.validation_share else "train"

    def finish(self, tokenizer: str) -> dict[str, Any]:
        """Writes the indices of all streams; returns the counts. Raises DataError for an empty part."""
        for stream in self._streams.values():
            stream.writer.finish(tokenizer)
        state = self.state
        return {
            **{part: self._summary(part) for part in PARTS},
            "duplicates": state["duplicates"],
            "bad_rows": len(state["bad_rows"]),
            "skipped": dict(sum(map(Counter, state["skipped"]), Counter[str]())),
            "ignored_fields": dict(sum(map(Counter, state["ignored"]), Counter[str]())),
        }

    def _summary(self, part: Part) -> dict[str, Any]:
        streams = [stream for (_, of), stream in self._streams.items() if of == part]
        sources = [stream.summary() for stream in streams]
        total = {name: sum(source[name] for source in sources) for name in ("documents", "tokens", "bytes")}
        if not total["tokens"]:
            share = self._settings.validation_share
            reason = f"; validation_share: {share:g} of the documents leaves none here" if share else ""
            raise DataError(f"{part} documents: no token to write; expected at least one document{reason}")
        lengths: list[int] = reduce(_added, (stream.counts["lengths"] for stream in streams))
        return {
            **total,
            "bytes_per_token": total["bytes"] / total["tokens"],
            "lengths": {str(SHORTEST << size): count for size, count in enumerate(lengths)},
            "sources": sources,
        }


def _added(one: list[int], other: list[int]) -> list[int]:
    return [a + b for a, b in zip_longest(one, other, fillvalue=0)]
