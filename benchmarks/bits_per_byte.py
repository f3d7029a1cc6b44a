"""Bits per byte of held-out text: a trained model, a 5-gram model of the same training tokens, zstd and gzip.

    python benchmarks/bits_per_byte.py PRETRAIN_FOLDER CORPUS_FOLDER

All figures are for the same text. The compressors read it in one piece; zstd also with a dictionary of one
megabyte of training text. The first token of a document (BOS) costs the two models nothing.
"""

from __future__ import annotations

import gzip
import math
import sys
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import zstandard
from machine import describe, table

from llamita.artifact import read_manifest
from llamita.corpus.corpus import Corpus
from llamita.corpus.shards import TokenShards
from llamita.model.checkpoint import load_tokenizer, tokenizer_hash

ORDER, DISCOUNT = 5, 0.75
WINDOW = 13  # tokens; this many equal tokens in a row are no coincidence
BEGIN = 1  # BOS
Context = tuple[int, ...]


class KneserNey:
    """Interpolated Kneser-Ney smoothing (Chen and Goodman, 1998) with one discount for all orders.

    Orders below the highest count the contexts in which a token occurred; below the lowest is the uniform
    distribution.
    """

    def __init__(self, documents: Sequence[Sequence[int]], vocab_size: int) -> None:
        self._uniform = 1 / vocab_size
        seen = [_grams(documents, length + 1) for length in range(ORDER)]
        self._counts = [Counter(gram[1:] for gram in longer) for longer in seen[1:]] + [seen[-1]]
        for counts, real in zip(self._counts[:-1], seen, strict=False):
            # nothing precedes the start of a document: for these n-grams the plain counts are used
            counts.update({gram: count for gram, count in real.items() if len(gram) > 1 and gram[0] == BEGIN})
        self._totals: list[Counter[Context]] = [Counter() for _ in range(ORDER)]
        self._kinds: list[Counter[Context]] = [Counter() for _ in range(ORDER)]
        for length, counts in enumerate(self._counts):
            for gram, count in counts.items():
                self._totals[length][gram[:-1]] += count
                self._kinds[length][gram[:-1]] += 1

    def probability(self, token: int, before: Context) -> float:
        estimate = self._uniform
        for length in range(min(ORDER, len(before) + 1)):
            context = before[len(before) - length :]
            total = self._totals[length].get(context, 0)
            if not total:
                break
            count = self._counts[length].get((*context, token), 0)
            backoff = DISCOUNT * self._kinds[length][context] / total
            estimate = max(count - DISCOUNT, 0) / total + backoff * estimate
        return estimate


def _grams(documents: Sequence[Sequence[int]], length: int) -> Counter[Context]:
    """Counts the n-grams that end at any token of a document except its first."""
    return Counter(
        tuple(document[end - length : end])
        for document in documents
        for end in range(max(2, length), len(document) + 1)
    )


def documents(stream: TokenShards) -> list[list[int]]:
    ids = stream.read(0, stream.tokens).tolist()
    begins = [*stream.document_starts(0, stream.tokens).tolist(), stream.tokens]
    return [ids[start:end] for start, end in pairwise(begins)]


def text(tokenizer: Any, texts: Sequence[Sequence[int]]) -> bytes:
    return "\n".join(tokenizer.batch_decode([ids[1:-1] for ids in texts])).encode()


def main() -> None:
    folder, shards = map(Path, sys.argv[1:])
    metrics = read_manifest(folder)["metrics"]
    tokenizer = load_tokenizer(folder)
    corpus = Corpus(shards, tokenizer_hash(tokenizer))
    train, held_out = (
        [document for stream in streams for document in documents(stream)]
        for streams in (corpus.train, corpus.validation)
    )
    size = corpus.counts["validation"]["bytes"]
    plain = text(tokenizer, held_out)
    model = KneserNey(train, len(tokenizer))
    nats = sum(
        -math.log(model.probability(document[place], tuple(document[max(0, place - ORDER + 1) : place])))
        for document in held_out
        for place in range(1, len(document))
    )
    dictionary = zstandard.ZstdCompressionDict(text(tokenizer, train[-5000:])[-1_000_000:])
    bits = {
        "the model": metrics["validation_bits_per_byte"],
        "5-gram, Kneser-Ney": nats / math.log(2) / size,
        "token frequencies": metrics["unigram_bits_per_byte"],
        "zstd -19, dictionary of 1 MB": _compressed_bits(
            zstandard.ZstdCompressor(19, dict_data=dictionary), plain
        ),
        "zstd -19": _compressed_bits(zstandard.ZstdCompressor(19), plain),
        "gzip -9": 8 * len(gzip.compress(plain, 9)) / len(plain),
    }
    print(describe(sys.argv))
    print(f"{len(held_out):,} held-out documents, {size:,} bytes; {len(train):,} training documents\n")
    print(table(["method", "bits per byte"], [[method, f"{value:.3f}"] for method, value in bits.items()]))
    share = repeated(train, held_out)
    print(f"\n{share:.1%} of the held-out windows of {WINDOW} tokens also occur in the training text")


def repeated(train: Sequence[Sequence[int]], held_out: Sequence[Sequence[int]]) -> float:
    """Share of the windows of held-out text that also occur in training documents."""
    windows = _grams(held_out, WINDOW)
    known = _grams(train, WINDOW)
    return sum(count for window, count in windows.items() if window in known) / windows.total()


def _compressed_bits(compressor: zstandard.ZstdCompressor, plain: bytes) -> float:
    return 8 * len(compressor.compress(plain)) / len(plain)


if __name__ == "__main__":
    main()
