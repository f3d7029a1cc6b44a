"""Bits per byte: how well held-out text is predicted, whatever the tokenizer."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from transformers import LlamaForCausalLM

from ..console import track
from ..data.shards import TokenShards


def bits_per_byte(nats: float, size: int) -> float:
    """Total negative log-likelihood in nats of a text of `size` UTF-8 bytes, as bits per byte."""
    return nats / math.log(2) / size


def unigram_nats(train: TokenShards, held_out: TokenShards, vocabulary_size: int) -> float:
    """What the held-out tokens cost under the training tokens' own frequencies (add-one smoothed), in nats.

    The first token, the BOS that nothing precedes, is free, as it is for the model.
    """
    frequencies = np.bincount(train.read(0, train.tokens), minlength=vocabulary_size) + 1.0
    costs = -np.log(frequencies / frequencies.sum())
    return float(costs[held_out.read(1, held_out.tokens)].sum())


@torch.no_grad()
def model_nats(model: LlamaForCausalLM, held_out: TokenShards, context_length: int, batch: int = 16) -> float:
    """What the held-out tokens cost under the model, in nats.

    The stream is cut into windows that overlap by one token, so that every token but the first is predicted
    once, from at most `context_length` tokens before it.
    """
    training = model.training
    model.eval()
    starts = range(0, held_out.tokens - 1, context_length)
    windows = [held_out.read(at, min(at + context_length + 1, held_out.tokens)) for at in starts]
    batches = [windows[at : at + batch] for at in range(0, len(windows), batch)]
    total = sum(_window_nats(model, windows) for windows in track(batches, "validation", unit="batches"))
    model.train(training)
    return total


def _window_nats(model: LlamaForCausalLM, windows: list[np.ndarray]) -> float:
    """The last window may be shorter: pads on its right are seen by no real token and not counted."""
    longest = max(map(len, windows))
    ids = torch.zeros(len(windows), longest, dtype=torch.long)
    targets = torch.full_like(ids, -100)
    for row, window in enumerate(windows):
        ids[row, : len(window)] = targets[row, : len(window)] = torch.from_numpy(window)
    logits = model(input_ids=ids[:, :-1].to(model.device), use_cache=False).logits.float().flatten(0, 1)
    costs = F.cross_entropy(logits, targets[:, 1:].flatten().to(logits.device), reduction="none")
    return float(costs.double().sum())
