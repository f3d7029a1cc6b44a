"""Writes a corpus: documents of all sources as token shards, a part of them held out.

Reading, encoding and writing run in parallel. When a shard is full, the journal stores the progress, from
which an interrupted run resumes.
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
from ..data.held_out import hash_fraction
from ..data.intake import Intake
from ..data.reading import check_formats, report_outcome
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
BATCH_BYTES = 4_000_000  # bytes of text that are encoded at a time
ENCODERS = 2  # batches in progress: all cores encode one while the ids of the other are copied
SHORTEST = 16  # tokens; upper limit of the histogram's first bin, doubled for each further bin


def write_corpus(
    settings: CorpusSettings, seed: int, tokenizer: Any, *, root: Path, folder: Path, journal: Path
) -> dict[str, Any]:
    """Writes the token shards of all sources below `folder`, unless the corpus exists.

    Each part of a source is a stream of its own: `folder/train/000` contains the training documents of the
    first source in `documents`. `folder/validation/000` contains the first source of `validation`, or, if
    `validation_share` is used, the held-out documents of the first source in `documents`.

    Args:
        seed: determines, with the text, which documents `validation_share` holds out; equal documents are in
            the same part.
        root: folder of relative source paths.
        journal: file from which an interrupted run resumes; not needed afterwards.

    Returns:
        For "train" and "validation" `documents`, `tokens`, `bytes`, `bytes_per_token`, `lengths` (documents
        by their tokens: up to 16, 32, …) and `sources` (`path`, `weight`, `folder`, `documents`, `tokens`,
        `bytes` of each); also `duplicates` and `bad_rows` (counts), `skipped` (documents by reason) and
        `ignored_fields` (documents by each field that is not used).

    Raises:
        DataError: more rows are bad than `max_bad_rows`, a source can't be read, or a part has no tokens.
    """
    if (folder / COUNTS).is_file():
        existing: dict[str, Any] = json.loads((folder / COUNTS).read_text(encoding="utf-8"))
        return existing
    check_formats([*settings.validation, *settings.documents], DOCUMENTS, "documents")
    with Journal(journal) as progress:
        preparation = _Preparation(settings, seed, tokenizer, root=root, folder=folder, journal=progress)
        preparation.write()
    counts = preparation.finish(tokenizer_hash(tokenizer))
    preparation.intake.write(folder)
    write_json(folder / COUNTS, counts)
    show_summary(counts)
    return counts


class _Stream:
    """One part of one source: its writer and its counts."""

    def __init__(self, folder: Path, name: str, source: Source, *, vocab_size: int, counts: Any) -> None:
        self.name, self.source, self.counts = name, source, counts
        self.writer = ShardWriter(folder / name, vocab_size, counts["shards"])

    def append(self, encoded: EncodedDocuments) -> None:
        self.writer.append(encoded)
        sizes = np.ceil(np.log2(np.maximum(1, encoded.lengths / SHORTEST))).astype(np.int64)
        self.counts["lengths"] = _add(self.counts["lengths"], np.bincount(sizes).tolist())

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
    """Writes all sources in order, held-out ones first: deduplication then drops equal training documents.

    `state` is the whole progress, which the journal stores.
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
        self.state: dict[str, Any] = {
            "source": 0,  # index of the source that is being read
            "rows": 0,  # number of its rows that were read
            "usable": [0] * len(self._sources),
            "skipped": [{} for _ in self._sources],
            "ignored": [{} for _ in self._sources],
            "duplicates": 0,
            "bad_rows": [],
            "bad_rows_before": 0,  # those of the sources before
            "streams": {},
        }
        self.state |= journal.state or {}
        self.intake = Intake(settings.max_bad_rows, bad_rows=self.state["bad_rows"])
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
        """Reads all remaining documents and writes them, shard by shard."""
        batches = track(
            ahead(self._batches()),
            "tokenizing",
            total=expected_megabytes(self._sources, self._root),
            unit="MB",
            amount=lambda batch: batch.bytes / 1e6,
            done=sum(stream.counts["bytes"] for stream in self._streams.values()) / 1e6,
        )
        pending: deque[dict[_Stream, Future[EncodedDocuments]]] = deque()
        with ThreadPoolExecutor(ENCODERS) as threads:
            for batch in batches:
                texts = self._take(batch)
                pending.append({stream: threads.submit(self._encode, texts[stream]) for stream in texts})
                tokens = sum(stream.writer.open_tokens for stream in self._streams.values())
                full = tokens >= self._settings.shard_tokens
                while len(pending) > (0 if full or batch.last else ENCODERS):
                    for stream, encoded in pending.popleft().items():
                        stream.append(encoded.result())
                if full:  # nothing is pending, so the journal describes exactly what was written
                    for stream in self._streams.values():
                        stream.writer.seal()
                    self._journal.commit(self.state)

    def _batches(self) -> Iterator[Batch]:
        # a token has at least one byte, so no batch overfills a shard
        size = min(BATCH_BYTES, self._settings.shard_tokens)
        return read_batches(
            self._sources, self._root, size, first=self.state["source"], rows=self.state["rows"]
        )

    def _take(self, batch: Batch) -> dict[_Stream, list[str]]:
        """Counts a batch; returns its texts by stream, without duplicates."""
        state, number = self.state, batch.source
        for reason in batch.bad_rows:
            self.intake.add_bad_row(reason)
        state["source"], state["rows"] = (number + 1, 0) if batch.last else (number, batch.rows)
        for name, counted in (("skipped", batch.skipped), ("ignored", batch.ignored)):
            state[name][number] = dict(Counter(state[name][number]) + counted)
        state["usable"][number] += len(batch.documents)
        if batch.last:
            skipped, ignored = (Counter(state[name][number]) for name in ("skipped", "ignored"))
            bad_rows = state["bad_rows"][state["bad_rows_before"] :]
            state["bad_rows_before"] = len(state["bad_rows"])
            report_outcome(
                self._sources[number], state["usable"][number], skipped, bad_rows=bad_rows, ignored=ignored
            )
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
        return "validation" if hash_fraction(text, self._seed) < self._settings.validation_share else "train"

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
            remedy = f"; increase validation_share, now {share:g}" if share and part == "validation" else ""
            raise DataError(f"{part} documents: expected at least one document, found none{remedy}")
        lengths: list[int] = reduce(_add, (stream.counts["lengths"] for stream in streams))
        return {
            **total,
            "bytes_per_token": total["bytes"] / total["tokens"],
            "lengths": {str(SHORTEST << size): count for size, count in enumerate(lengths)},
            "sources": sources,
        }


def _add(first: list[int], second: list[int]) -> list[int]:
    return [a + b for a, b in zip_longest(first, second, fillvalue=0)]
