"""Attention over packed rows, segment by segment.

A kernel with a mask computes every score of a row and throws away those between segments: nearly all where a
row holds twenty short dialogues. Here segments of like lengths go through a causal kernel side by side.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, LlamaForCausalLM

from ..distributed.device import fixed_shapes
from ..errors import ConfigError
from ..model.architecture import carries_state
from ..model.padding import UNTRAINED

NAME = "packed"
SHORTEST = 32  # tokens; segments up to here share one call, then those up to twice as many, and so on


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    position_ids: Tensor | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Causal attention within each segment of rows whose positions restart with every segment.

    Args:
        query: `[rows, heads, length, size]`; key and value may have fewer heads, values another size.
        attention_mask: what `_window` makes of a layer's mask.
        position_ids: `[rows, length]`, or `[1, length]` for rows alike, int64: 0 at the first token of each
            row and of each segment.
        options: what transformers gives every kernel: `scaling`, `dropout` and so on.

    Returns:
        `[rows, length, heads, size of a value]` in the dtype of `query`, and None for the weights.

    Raises:
        NotImplementedError: this architecture's attention can't be computed segment by segment.
    """
    if position_ids is None or options.get("position_bias") is not None:
        raise NotImplementedError("needs position_ids, and no bias by the place in the row")
    rows, heads, length, _ = query.shape
    window = None if attention_mask is None else int(attention_mask)
    parting = _segment_layout(position_ids, rows)
    sizes = [segments * longest for segments, longest in parting.shapes]
    parts = (
        states.transpose(1, 2).flatten(0, 1)[parting.places].split(sizes) for states in (query, key, value)
    )
    attended = []
    for shape, *states in zip(parting.shapes, *parts, strict=True):
        q, k, v = (part.unflatten(0, shape).transpose(1, 2) for part in states)
        attended.append(_attend(module, q, k, v, window=window, **options).flatten(0, 1))
    return torch.cat(attended)[parting.back].view(rows, length, heads, -1), None


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    window: int | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **options: Any,
) -> Tensor:
    """Causal attention of segments side by side: `[segments, length, heads, size]`.

    Scores that are capped, or that share their softmax with a sink, are beyond torch's kernel: those go
    through the architecture's own eager attention, which every modeling file of transformers has.
    """
    seen = _band(query.shape[2], window, query.device)
    if options.get("softcap") is None and options.get("s_aux") is None:
        return F.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=seen,
            is_causal=seen is None,
            scale=scaling,
            dropout_p=dropout,
            enable_gqa=True,
        ).transpose(1, 2)
    if seen is None:
        seen = query.new_ones(query.shape[2], query.shape[2], dtype=torch.bool).tril()
    mask = torch.zeros_like(seen, dtype=query.dtype).masked_fill(~seen, torch.finfo(query.dtype).min)
    eager = sys.modules[type(module).__module__].eager_attention_forward
    attended: Tensor = eager(
        module, query, key, value, mask[None, None], scaling=scaling, dropout=dropout, **options
    )[0]
    return attended


def _band(length: int, window: int | None, device: torch.device) -> Tensor | None:
    """`[length, length]` bool: the last `window` tokens up to each; None where that is all tokens before."""
    if window is None or window >= length:
        return None
    return torch.ones(length, length, dtype=torch.bool, device=device).tril().triu(1 - window)


def _window(*, config: Any, local_size: int | None = None, **_: Any) -> Tensor | None:
    """In place of a layer's mask how many tokens it sees, as a mask of one number; None for all before.

    Not every architecture hands its sliding window to the kernel, but all ask for a mask that has it.
    """
    if local_size is None:
        return None
    if local_size == getattr(config, "attention_chunk_size", None):
        raise NotImplementedError("chunks of a document are not computed by segments")
    return torch.tensor(local_size).view(1, 1, 1, 1)


AttentionInterface.register(NAME, packed_attention)
AttentionMaskInterface.register(NAME, _window)


@dataclass(frozen=True)
class _SegmentLayout:
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
def _segment_layout(position_ids: Tensor, rows: int) -> _SegmentLayout:
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
    return _SegmentLayout(joined, back, shapes)


@contextmanager
def attending_within_segments(
    model: LlamaForCausalLM, device: torch.device, kernel: str | None = None
) -> Iterator[None]:
    """Within it `model` attends by `kernel`; batches must give `position_ids` and no mask.

    By default that is `packed_attention` on the CPU, where a mask is much dearer, and the model's own on
    others, or where layers carry state, so that rows can't be joined. `flash_attention_2` needs all rows as
    one, see `one_row`.

    Raises:
        ConfigError: the kernel is not installed, or this device has none.
    """
    chosen = kernel or (NAME if device.type == "cpu" and not carries_state(model) else None)
    before = model.config._attn_implementation
    try:
        if chosen is not None:
            model.set_attn_implementation(chosen)
    except (ImportError, ValueError) as error:
        raise ConfigError(f"attn_implementation: {chosen}: {error}") from None
    try:
        with nullcontext() if chosen == NAME else fixed_shapes():  # segments differ in length
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
