"""Attention over packed rows, segment by segment.

A kernel with a mask computes every score of a row and throws away those between segments: nearly all where a
row holds twenty short dialogues. Here segments of like lengths go through a causal kernel side by side.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, LlamaForCausalLM

from ..data.chat import UNTRAINED
from ..errors import ConfigError

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
    parting = _parting(position_ids, rows)
    sizes = [segments * longest for segments, longest in parting.shapes]
    parts = (
        states.transpose(1, 2).flatten(0, 1)[parting.places].split(sizes) for states in (query, key, value)
    )
    attended = []
    for shape, *states in zip(parting.shapes, *parts, strict=True):
        q, k, v = (part.unflatten(0, shape).transpose(1, 2) for part in states)
        answers = F.scaled_dot_product_attention(
            q,
            k,
            v,
            is_causal=True,
            scale=scaling,
            dropout_p=dropout,
            enable_gqa=True,
        )
        attended.append(answers.transpose(1, 2).flatten(0, 1))
    return torch.cat(attended)[parting.back].view(rows, length, heads, size), None


@dataclass(frozen=True)
class _Parting:
    """How the tokens of all rows are laid out by segments of like lengths, the longer of which are together.

    Behind its end a segment is filled up with what follows it, which causal attention never looks at.

    Attributes:
        places: of the tokens of all segments, filled up, in the rows: `[filled]` int64.
        back: where each token stands in `places`: `[tokens]` int64.
        shapes: segments that share a call, and how long they are when filled up.
    """

    places: Tensor
    back: Tensor
    shapes: list[tuple[int, int]]


@lru_cache(maxsize=1)  # all layers are given the same tensor
def _parting(position_ids: Tensor, rows: int) -> _Parting:
    positions = position_ids.expand(rows, -1).flatten()
    starts = (positions == 0).nonzero().squeeze(1)
    lengths = torch.diff(starts, append=starts.new_tensor([len(positions)]))
    places, real, shapes = [], [], []
    shorter_than, longest = 0, SHORTEST
    while shorter_than < lengths.max():
        chosen = (lengths > shorter_than) & (lengths <= longest)
        if chosen.any():
            steps = torch.arange(int(lengths[chosen].max()), device=positions.device)
            places.append((starts[chosen, None] + steps).clamp(max=len(positions) - 1).flatten())
            real.append((steps < lengths[chosen, None]).flatten())
            shapes.append((int(chosen.sum()), len(steps)))
        shorter_than, longest = longest, 2 * longest
    joined = torch.cat(places)
    back = torch.empty_like(positions)
    filled = torch.cat(real).nonzero().squeeze(1)
    back[joined[filled]] = filled
    return _Parting(joined, back, shapes)


@contextmanager
def attending_within_segments(
    model: LlamaForCausalLM, device: torch.device, kernel: str | None = None
) -> Iterator[None]:
    """Within it `model` attends by `kernel`; batches must give `position_ids` and no mask.

    By default that is `packed_attention` on the CPU, where a mask is much dearer, and the model's own on
    others. `flash_attention_2` needs all rows as one, see `one_row`.

    Raises:
        ConfigError: the kernel is not installed, or this device has none.
    """
    chosen = kernel or (NAME if device.type == "cpu" else None)
    if chosen is None:
        yield
        return
    AttentionInterface.register(NAME, packed_attention)
    AttentionMaskInterface.register(NAME, lambda **_: None)
    before = model.config._attn_implementation
    try:
        model.set_attn_implementation(chosen)
    except (ImportError, ValueError) as error:
        raise ConfigError(f"attention: {chosen}: {error}") from None
    try:
        yield
    finally:
        model.set_attn_implementation(before)


def one_row(batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Packed rows `[rows, length]` as one of `[1, rows * length]`; the first token of each is no label.

    Kernels that go by the segments' lengths know them from the positions of a single row only.
    """
    labels = batch["labels"].clone()
    labels[:, 0] = UNTRAINED  # it would follow on the row before
    return {name: states.view(1, -1) for name, states in {**batch, "labels": labels}.items()}


class OneRowCollator:
    """Rows of a data set to a batch of one long row."""

    def __call__(self, rows: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
        return one_row({name: torch.stack([row[name] for row in rows]) for name in rows[0]})
