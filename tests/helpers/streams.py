"""Token streams made of lists of ids."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from llamita.corpus.encoder import EncodedDocuments
from llamita.corpus.shards import ShardWriter, TokenShards


def as_encoded(documents: Iterable[Sequence[int]]) -> EncodedDocuments:
    """Lists of ids as the encoder would hand them on."""
    documents = list(documents)
    ids = np.array([id for document in documents for id in document], dtype=np.uint32)
    return EncodedDocuments(ids, np.array([len(document) for document in documents], dtype=np.int64))


def write_stream(
    documents: Iterable[Sequence[int]], folder: Path, vocab_size: int, shard_tokens: int = 100
) -> TokenShards:
    """Shards of `shard_tokens` tokens or a little more, written document by document."""
    writer = ShardWriter(folder, vocab_size, [])
    for document in documents:
        writer.append(as_encoded([document]))
        if writer.open_tokens >= shard_tokens:
            writer.seal()
    writer.finish("abc")
    return TokenShards(folder, "abc")
