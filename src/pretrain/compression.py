"""Bits per byte: how well held-out text is predicted, whatever the tokenizer."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from transformers import LlamaForCausalLM

from ..console import track
from ..data.chat import UNTRAINED
from ..data.shards import TokenShards, document_positions


def bits_per_byte(nats: float, size: int) -> float:
    """Total negative log-likelihood in nats of a text of `size` UTF-8 bytes, as bits per byte."""
    return nats / math.log(2) / size


def unigram_nats(
    train: TokenShards, held_out: TokenShards, vocabulary_size: int, document_start: int
) -> float:
    """What the held-out tokens cost under the training tokens' own frequencies (add-one smoothed), in nats.

    The tokens that begin a document are free, as they are for the model.
    """
    frequencies = np.bincount(train.read(0, train.tokens), minlength=vocabulary_size) + 1.0
    costs = -np.log(frequencies / frequencies.sum())
    costs[document_start] = 0.0
    return float(costs[held_out.read(0, held_out.tokens)].sum())


@torch.no_grad()
def model_nats(
    model: LlamaForCausalLM,
    held_out: TokenShards,
    context_length: int,
    document_start: int,
    cross_document_attention: bool = False,
    batch: int = 16,
) -> float:
    """What the held-out tokens cost under the model, in nats.

    The stream is cut into windows that overlap by one token, so that every token is predicted once, from at
    most `context_length` tokens before it, those of earlier documents among them or not. The tokens that
    begin a document (`document_start`) are free: they are given, not text.
    """
    training = model.training
    model.eval()
    starts = range(0, held_out.tokens - 1, context_length)
    windows = [held_out.read(at, min(at + context_length + 1, held_out.tokens)) for at in starts]
    batches = [windows[at : at + batch] for at in range(0, len(windows), batch)]
    total = sum(
        _window_nats(model, windows, document_start, cross_document_attention)
        for windows in track(batches, "validation", unit="batches")
    )
    model.train(training)
    return total


def _window_nats(
    model: LlamaForCausalLM, windows: list[np.ndarray], document_start: int, cross_document_attention: bool
) -> float:
    """The last window may be shorter: pads on its right are seen by no real token and not counted."""
    longest = max(map(len, windows))
    ids = torch.zeros(len(windows), longest, dtype=torch.long)
    targets = torch.full_like(ids, UNTRAINED)
    for row, window in enumerate(windows):
        ids[row, : len(window)] = targets[row, : len(window)] = torch.from_numpy(window)
    targets[targets == document_start] = UNTRAINED
    seen = ids[:, :-1].to(model.device)
    positions = None if cross_document_attention else document_positions(seen, document_start)
    logits = model(input_ids=seen, position_ids=positions, use_cache=False).logits.float().flatten(0, 1)
    costs = F.cross_entropy(logits, targets[:, 1:].flatten().to(logits.device), reduction="none")
    return float(costs.double().sum())
