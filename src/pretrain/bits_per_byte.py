"""Bits per byte: how well held-out text is predicted, comparable between tokenizers."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from transformers import LlamaForCausalLM

from ..batches import batches
from ..console import track
from ..corpus.shards import TokenShards
from ..corpus.token_rows import positions
from ..errors import DataError
from ..model.padding import UNTRAINED, pad_right
from ..processes import phase

EVALUATED_AT_ONCE = 1024  # tokens; logits in fp32 and their log-probabilities exist for these only
MAX_COUNTED = 100_000_000  # tokens per stream; enough for the frequencies of the vocabulary


def bits_per_byte(nats: float, size: int) -> float:
    """Converts the total negative log-likelihood in nats of a text of `size` UTF-8 bytes to bits per byte."""
    return nats / math.log(2) / size


def counted_bytes(size: int, held_out: Sequence[TokenShards], tokenizer: Any) -> int:
    """Returns the bytes of the held-out text, of `size` UTF-8 bytes, whose tokens are counted in nats.

    Without BOS the token at which a document starts is text, but nothing before it predicts it. Parts of a
    character count as three bytes.

    Raises:
        DataError: the text has no other tokens.
    """
    if tokenizer.bos_token_id is not None:
        return size
    first = Counter[int]()
    for stream in held_out:
        for number in range(len(stream.index["shards"])):
            ids, starts = stream.shard(number)
            first.update(ids[starts].tolist())
    counted = size - sum(count * len(tokenizer.decode([id]).encode()) for id, count in first.items())
    if counted <= 0:
        raise DataError(
            f"the held-out documents have one token each ({first.total():,} documents, {size:,} bytes), and "
            "without BOS nothing predicts it; expected longer held-out documents"
        )
    return counted


def unigram_nats(train: Sequence[TokenShards], held_out: Sequence[TokenShards], vocab_size: int) -> float:
    """Negative log-likelihood in nats of the held-out tokens under the training tokens' frequencies.

    Frequencies are add-one smoothed and counted in the first `MAX_COUNTED` tokens of each training stream. As
    for the model, the tokens at which documents start are not counted.
    """
    frequencies = np.ones(vocab_size)
    for stream in train:
        frequencies += np.bincount(stream.read(0, min(stream.tokens, MAX_COUNTED)), minlength=vocab_size)
    nats = -np.log(frequencies / frequencies.sum())
    total = 0.0
    for stream in held_out:
        ids = stream.read(0, stream.tokens)
        total += nats[ids].sum() - nats[ids[stream.document_starts(0, stream.tokens)]].sum()
    return float(total)


@phase("evaluation")
@torch.no_grad()
def model_nats(
    model: LlamaForCausalLM,
    held_out: TokenShards,
    context_length: int,
    *,
    isolate_documents: bool,
    batch: int,
    share: int = 0,
    shares: int = 1,
) -> float:
    """Negative log-likelihood in nats of the held-out tokens under the model, or of one of `shares` of them.

    The stream is cut into windows that overlap by one token, so that every token is predicted once, from at
    most `context_length` earlier tokens, with `isolate_documents` only from those of its own document. Tokens
    at which documents start are not counted, see `counted_bytes`. All shares take the same number of forward
    passes.

    `batch`: windows of one forward pass, which holds the logits of all of them in the model's own precision.
    """
    training = model.training
    model.eval()
    if isolate_documents and model.config._attn_implementation == "flash_attention_2":
        batch = 1  # it derives the starts of documents from the positions of a single row only

    def nats(starts: Iterable[int]) -> float:
        stops = ((start, min(start + context_length + 1, held_out.tokens)) for start in starts)
        windows = [_Window.of(held_out, start, stop) for start, stop in stops]
        return _window_nats(model, windows, isolate_documents)

    all_starts = batches(list(range(0, held_out.tokens - 1, context_length)), batch)
    own = all_starts[share::shares]
    total = sum(map(nats, track(own, "validation", unit="batches")))
    for _ in range(-(-len(all_starts) // shares) - len(own)):  # with ZeRO-3 the other ranks need this one
        nats(all_starts[0])
    model.train(training)
    return total


class _Window(NamedTuple):
    """Part of a stream, int64: input tokens, their positions, and the tokens to predict."""

    inputs: torch.Tensor
    positions: torch.Tensor
    targets: torch.Tensor

    @classmethod
    def of(cls, stream: TokenShards, start: int, stop: int) -> _Window:
        ids = torch.from_numpy(stream.read(start, stop))
        document_starts = stream.document_starts(start, stop)
        targets = ids.clone()
        targets[document_starts] = UNTRAINED
        length = len(ids) - 1
        return cls(ids[:-1], positions(document_starts[document_starts < length], length), targets[1:])


def _window_nats(model: LlamaForCausalLM, windows: list[_Window], isolate_documents: bool) -> float:
    """Nats of a batch of windows; a shorter last window is padded on the right, and pads are not counted."""
    inputs, places, targets = (
        pad_right(parts, pad)[0].to(model.device)
        for parts, pad in zip(zip(*windows, strict=True), (0, 0, UNTRAINED), strict=True)
    )
    logits = model(
        input_ids=inputs, position_ids=places if isolate_documents else None, use_cache=False
    ).logits
    return float(total_nats(logits.flatten(0, 1), targets.flatten()))


def total_nats(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Sum of the targets' nats, fp64 scalar.

    Args:
        logits: `[tokens, vocabulary]` in any precision; only a part of them is copied to fp32 at a time.
        targets: int64 `[tokens]`; `UNTRAINED` is not counted.
    """
    parts = zip(logits.split(EVALUATED_AT_ONCE), targets.split(EVALUATED_AT_ONCE), strict=True)
    nats = [F.cross_entropy(part.float(), tokens, reduction="none").double().sum() for part, tokens in parts]
    return torch.stack(nats).sum()
