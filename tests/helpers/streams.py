"""Token streams built from lists of ids."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from llamita.corpus.encoder import EncodedDocuments
from llamita.corpus.shards import ShardWriter, TokenShards


def as_encoded(documents: Iterable[Sequence[int]]) -> EncodedDocuments:
    """Returns lists of ids in the form that the encoder returns."""
    documents = list(documents)
    ids = np.array([id for document in documents for id in document], dtype=np.uint32)
    return EncodedDocuments(ids, np.array([len(document) for document in documents], dtype=np.int64))


def write_stream(
    documents: Iterable[Sequence[int]], folder: Path, vocab_size: int, shard_tokens: int = 100
) -> TokenShards:
    """Writes documents to shards of at least `shard_tokens` tokens; returns the opened stream."""
    writer = ShardWriter(folder, vocab_size, [])
    for document in documents:
        writer.append(as_encoded([document]))
        if writer.open_tokens >= shard_tokens:
            writer.seal()
    writer.finish("abc")
    return TokenShards(folder, "abc")
