"""Tokenizes batches of texts on all cores."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np


class EncodedDocuments(NamedTuple):
    """Concatenated documents: `ids` `[tokens]` uint32, `lengths` `[documents]` int64."""

    ids: np.ndarray
    lengths: np.ndarray


class DocumentEncoder:
    """Encodes documents and adds BOS and EOS to each, if the tokenizer has them (not without `bounded`).

    Special tokens in a text, such as "<s>", are encoded as plain text. Encoding releases the GIL, so other
    Python threads continue to run.

    Args:
        tokenizer: a `PreTrainedTokenizerFast`, which is not modified.
    """

    def __init__(self, tokenizer: Any, *, bounded: bool = True) -> None:
        from tokenizers import Tokenizer

        self._backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
        self._backend.encode_special_tokens = True
        self._backend.no_padding()
        self._backend.no_truncation()
        ends = (tokenizer.bos_token_id, tokenizer.eos_token_id) if bounded else (None, None)
        self._before, self._after = ([] if id is None else [id] for id in ends)

    def __call__(self, texts: Sequence[str]) -> EncodedDocuments:
        parts = [
            part
            for encoding in self._backend.encode_batch_fast(texts, add_special_tokens=False)
            for part in (self._before, encoding.ids, self._after)
        ]
        lengths = np.array([len(part) for part in parts], dtype=np.int64).reshape(-1, 3).sum(1)
        ids = np.fromiter(chain.from_iterable(parts), dtype=np.uint32, count=int(lengths.sum()))
        return EncodedDocuments(ids, lengths)
