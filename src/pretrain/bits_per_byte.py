"""Bits per byte: how well held-out text is predicted, whatever the tokenizer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from transformers import LlamaForCausalLM

from ..batches import batches
from ..console import track
from ..corpus.shards import TokenShards
from ..corpus.token_rows import positions
from ..model.padding import UNTRAINED, pad_right

COUNTED = 100_000_000  # tokens of a stream are enough for the frequencies of the vocabulary


def bits_per_byte(nats: float, size: int) -> float:
    """Total negative log-likelihood in nats of a text of `size` UTF-8 bytes, as bits per byte."""
    return nats / math.log(2) / size


def unigram_nats(train: Sequence[TokenShards], held_out: Sequence[TokenShards], vocab_size: int) -> float:
    """What the held-out tokens cost under the training tokens' own frequencies (add-one smoothed), in nats.

    The tokens that begin a document are free, as they are for the model. Of each training stream, the first
    hundred million tokens are counted.
    """
    frequencies = np.ones(vocab_size)
    for stream in train:
        frequencies += np.bincount(stream.read(0, min(stream.tokens, COUNTED)), minlength=vocab_size)
    costs = -np.log(frequencies / frequencies.sum())
    total = 0.0
    for stream in held_out:
        ids = stream.read(0, stream.tokens)
        total += costs[ids].sum() - costs[ids[stream.document_starts(0, stream.tokens)]].sum()
    return float(total)


@torch.no_grad()
def model_nats(
    model: LlamaForCausalLM,
    held_out: TokenShards,
    context_length: int,
    *,
    apart: bool,
    batch: int = 16,
    share: int = 0,
    shares: int = 1,
) -> float:
    """What the held-out tokens cost under the model, in nats; with `shares`, those of one share of them.

    The stream is cut into windows that overlap by one token, so that every token is predicted once, from at
    most `context_length` tokens before it, with `apart` those of its own document alone. The tokens that
    begin a document are free: they are given, not text. All shares take equally many forward passes.
    """
    training = model.training
    model.eval()
    starts = range(0, held_out.tokens - 1, context_length)
    windows = [_Window.of(held_out, at, min(at + context_length + 1, held_out.tokens)) for at in starts]
    if apart and model.config._attn_implementation == "flash_attention_2":
        batch = 1  # it knows where documents begin from the positions of a single row only
    dealt = batches(windows, batch)
    mine = dealt[share::shares]
    total = sum(_window_nats(model, windows, apart) for windows in track(mine, "validation", unit="batches"))
    for _ in range(-(-len(dealt) // shares) - len(mine)):  # under ZeRO-3 the other ranks need this one
        _window_nats(model, dealt[0], apart)
    model.train(training)
    return total


class _Window(NamedTuple):
    """A piece of a stream, int64: what is seen, its positions, and what is to be predicted."""

    seen: torch.Tensor
    positions: torch.Tensor
    targets: torch.Tensor

    @classmethod
    def of(cls, stream: TokenShards, start: int, stop: int) -> _Window:
        ids = torch.from_numpy(stream.read(start, stop))
        begins = stream.document_starts(start, stop)
        targets = ids.clone()
        targets[begins] = UNTRAINED
        length = len(ids) - 1
        return cls(ids[:-1], positions(begins[begins < length], length), targets[1:])


def _window_nats(model: LlamaForCausalLM, windows: list[_Window], apart: bool) -> float:
    """The last window may be shorter: pads on its right are seen by no real token and not counted."""
    seen, places, targets = (
        pad_right(parts, pad)[0].to(model.device)
        for parts, pad in zip(zip(*windows, strict=True), (0, 0, UNTRAINED), strict=True)
    )
    logits = model(input_ids=seen, position_ids=places if apart else None, use_cache=False).logits
    costs = F.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), reduction="none")
    return float(costs.double().sum())
