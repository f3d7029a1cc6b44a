"""Time and memory of the contamination search, on random tokens with planted overlaps that it must find.

    python benchmarks/contamination.py [TOKENS] [SAMPLES] [THREADS]

by default 500 million uint16 tokens in shards of 100 million, 10,000 samples of 200 tokens, and two threads.
The shards are written to a temporary folder (TMPDIR) first. Tokens have Zipf's distribution. Half of the
samples share a span of 11 to 200 tokens with up to four mismatches with one document. The second table is of
a text in which every document contains the same passage, which is also in each of 1,000 samples.
"""

from __future__ import annotations

import os
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from machine import describe, table

from llamita.contamination.chunk import MAX_MISMATCHES
from llamita.contamination.index import GRAM, SampleIndex
from llamita.contamination.matches import SHORTEST_SPAN, Matches, Text
from llamita.contamination.search import search
from llamita.corpus.encoder import EncodedDocuments
from llamita.corpus.shards import ShardWriter, TokenShards

VOCABULARY = 32_000
DOCUMENT, SAMPLE = 500, 200
SHARD = 100_000_000
BATCH = 5_000_000


class Tokens:
    """Random tokens; token n has a probability in proportion to 1 / n."""

    def __init__(self) -> None:
        self.generator = np.random.default_rng(0)
        weights = 1 / np.arange(1, VOCABULARY + 1)
        self._cumulative = np.cumsum(weights / weights.sum())

    def draw(self, count: int) -> np.ndarray:
        ranks = np.searchsorted(self._cumulative, self.generator.random(count))
        return np.minimum(ranks, VOCABULARY - 1).astype(np.uint16)


def plant(tokens: Tokens, sample: np.ndarray, document: np.ndarray) -> int:
    """Copies a span of a sample into a document, with mismatches; returns its length."""
    draw = tokens.generator.integers
    length = int(draw(SHORTEST_SPAN, SAMPLE + 1))
    begin, place = int(draw(0, SAMPLE - length + 1)), int(draw(1, DOCUMENT - SAMPLE - MAX_MISMATCHES))
    span = sample[begin : begin + length].copy()
    inner = np.arange(GRAM, length - 1)
    mismatches = tokens.generator.permutation(inner)[: int(draw(0, MAX_MISMATCHES + 1))]
    span[mismatches] = VOCABULARY - 1 - span[mismatches]
    document[place : place + length] = span
    ends = begin + length
    after = sample[ends : ends + MAX_MISMATCHES + 1]  # so that the span does not continue by chance
    document[place + length : place + length + len(after)] = VOCABULARY - 1 - after
    document[place - 1] = VOCABULARY - 1 - sample[max(begin - 1, 0)]
    return length


def write_corpus(tokens: Tokens, samples: list[np.ndarray], count: int, folder: Path) -> dict[int, int]:
    """Writes the shards; returns the length of the span that was planted for every second sample."""
    writer = ShardWriter(folder, VOCABULARY, [])
    planted: dict[int, int] = {}
    total = -(-count // BATCH)
    for batch in range(total):
        documents = tokens.draw(min(BATCH, count - batch * BATCH)).reshape(-1, DOCUMENT)
        chosen = range(2 * batch, len(samples), 2 * total)
        for document, sample in zip(documents, chosen, strict=False):
            planted[sample] = plant(tokens, samples[sample], document)
        lengths = np.full(len(documents), DOCUMENT)
        writer.append(EncodedDocuments(documents.reshape(-1).astype(np.uint32), lengths))
        if writer.open_tokens >= SHARD:
            writer.seal()
    writer.finish("random")
    return planted


def measured(shards: list[Text], index: SampleIndex, threads: int) -> tuple[Matches, float, float]:
    """Searches the shards; returns the matches, seconds, and seconds of the processor."""
    matches, documents = Matches.none(len(index.tokens)), 0
    started, processor = time.perf_counter(), time.process_time()
    for text in shards:
        search(index, text, matches, threads=threads, first_document=documents)
        documents += len(text.starts)
    return matches, time.perf_counter() - started, time.process_time() - processor


def peak() -> str:
    return f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f}"  # from kB to GB


def repeated(tokens: Tokens, documents: int, samples: int, passage: int) -> tuple[Text, list[np.ndarray]]:
    """Returns a text and samples that contain the same passage, with different tokens before and after it."""
    common = tokens.draw(passage)

    def around(count: int, before: int, after: int) -> np.ndarray:
        parts = (tokens.draw(count * before).reshape(count, -1), np.tile(common, (count, 1)))
        return np.concatenate([*parts, tokens.draw(count * after).reshape(count, -1)], axis=1)

    text = around(documents, 5, 40)
    starts = np.arange(documents) * text.shape[1]
    return Text(text.reshape(-1), starts), list(around(samples, 5, 100))


def main() -> None:
    given = [int(float(value)) for value in sys.argv[1:]]
    count, number, threads = [*given, *(500_000_000, 10_000, 2)[len(given) :]]
    print(f"{describe(sys.argv)}threads: {threads}\n", flush=True)
    tokens = Tokens()
    samples = [tokens.draw(SAMPLE) for _ in range(number)]
    with tempfile.TemporaryDirectory() as folder:
        planted = write_corpus(tokens, samples, count, Path(folder))
        stream = TokenShards(Path(folder))
        before = peak()
        started, processor = time.perf_counter(), time.process_time()
        index = SampleIndex(samples, VOCABULARY)
        rows = [
            [
                "index of the samples",
                *_seconds(time.perf_counter() - started, time.process_time() - processor),
            ]
        ]
        shards = (Text(*stream.shard(shard)) for shard in range(len(stream.index["shards"])))
        matches, seconds, of_processor = measured(shards, index, threads)
        rows.append([f"search of {count:,} tokens", *_seconds(seconds, of_processor)])
    longest = np.maximum.reduceat(matches.lengths, index.bounds[:-1])
    exact = sum(longest[sample] == length for sample, length in planted.items())
    longer = sum(longest[sample] > length for sample, length in planted.items())
    others = int((np.delete(longest, list(planted)) > 0).sum())
    print(table(["", "seconds", "of the processor"], rows))
    print(
        f"\n{len(planted):,} planted spans: {exact:,} found with their length, {longer:,} longer by chance, "
        f"{len(planted) - exact - longer:,} missed; {others:,} other samples have spans"
    )
    print(
        f"peak memory (RSS): {peak()} GB; before the search, from writing the shards: {before} GB\n",
        flush=True,
    )

    rows = []
    for documents, of_samples, passage in ((100_000, 1000, 10), (100_000, 1000, 100), (1_000_000, 1000, 100)):
        text, with_passage = repeated(tokens, documents, of_samples, passage)
        _, seconds, of_processor = measured([text], SampleIndex(with_passage, VOCABULARY), threads)
        pairs = documents * of_samples
        rows.append(
            [
                f"{passage}",
                f"{documents:,}",
                f"{of_samples:,}",
                *_seconds(seconds, of_processor),
                f"{of_processor / pairs * 1e9:.0f}",
            ]
        )
    print(
        table(
            ["tokens of the passage", "documents", "samples", "seconds", "of the processor", "ns per pair"],
            rows,
        )
    )
    print(f"\npeak memory (RSS): {peak()} GB")


def _seconds(seconds: float, of_processor: float) -> tuple[str, str]:
    return f"{seconds:.1f}", f"{of_processor:.1f}"


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
