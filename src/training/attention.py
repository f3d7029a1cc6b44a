"""Attention over packed rows, segment by segment.

A kernel with a mask computes every score of a row and throws away those between segments: nearly all where a
row holds twenty short dialogues. Here segments of like lengths go through a causal kernel side by side.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, LlamaForCausalLM

NAME = "packed"
SHORTEST = 32  # tokens; segments up to here share one call, then those up to twice as many, and so on


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    position_ids: Tensor,
    scaling: float | None = None,
    dropout: float = 0.0,
    **_: Any,
) -> tuple[Tensor, None]:
    """Causal attention within each segment of rows whose positions restart with every segment.

    Args:
        query: `[rows, heads, length, size]`; key and value may have fewer heads.
        attention_mask: not looked at.
        position_ids: `[rows, length]`, or `[1, length]` for rows alike, int64: 0 at the first token of each
            row and of each segment.

    Returns:
        `[rows, length, heads, size]` in the dtype of `query`, and None for the weights.
    """
    rows, heads, length, size = query.shape
    query, key, value = (states.transpose(1, 2).flatten(0, 1) for states in (query, key, value))
    output = torch.empty_like(query)
    for places, real in _alike(position_ids.expand(rows, length).flatten()):
        attended = F.scaled_dot_product_attention(
            query[places].transpose(1, 2),
            key[places].transpose(1, 2),
            value[places].transpose(1, 2),
            is_causal=True,
            scale=scaling,
            dropout_p=dropout,
            enable_gqa=True,
        )
        output = output.index_put((places[real],), attended.transpose(1, 2)[real])
    return output.view(rows, length, heads, size), None


def _alike(positions: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Segments of like lengths: places of their tokens `[segments, longest]`, and which of these are real.

    Behind its end a segment is filled up with what follows it, which causal attention never looks at.
    """
    starts = (positions == 0).nonzero().squeeze(1)
    lengths = torch.diff(starts, append=starts.new_tensor([len(positions)]))
    shorter_than = 0
    longest = SHORTEST
    while shorter_than < lengths.max():
        chosen = (lengths > shorter_than) & (lengths <= longest)
        if chosen.any():
            steps = torch.arange(int(lengths[chosen].max()), device=positions.device)
            places = (starts[chosen, None] + steps).clamp(max=len(positions) - 1)
            yield places, steps < lengths[chosen, None]
        shorter_than, longest = longest, 2 * longest


@contextmanager
def attending_within_segments(model: LlamaForCausalLM, device: torch.device) -> Iterator[None]:
    """Within it `model` attends as `packed_attention` does; batches must give `position_ids` and no mask.

    `device`: where it will run; others than the CPU keep their own kernels, which take packed rows too.
    """
    if device.type != "cpu":
        yield
        return
    AttentionInterface.register(NAME, packed_attention)
    AttentionMaskInterface.register(NAME, lambda **_: None)
    before = model.config._attn_implementation
    model.set_attn_implementation(NAME)
    try:
        yield
    finally:
        model.set_attn_implementation(before)
