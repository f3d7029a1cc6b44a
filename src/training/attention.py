"""Attention over packed rows, computed segment by segment.

A kernel with a mask computes all scores of a row and discards those between segments: nearly all of them if a
row holds twenty short dialogues. On GPUs, in half precision, torch's kernel in `varlen.py` takes the segments
as they are. Elsewhere segments of similar lengths share a call of a causal kernel.
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
from . import varlen

NAME = "packed"
FIRST_LIMIT = 32  # tokens; segments up to this length share a call, then those up to twice as long, etc.


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    position_ids: Tensor | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Causal attention within each segment of packed rows; positions restart at 0 in every segment.

    Args:
        query: `[rows, heads, length, size]`; key and value may have fewer heads, values another size.
        attention_mask: the window size of this layer, as returned by `_window`, or None.
        position_ids: int64 `[rows, length]`, or `[1, length]` if all rows have the same segments: 0 at the
            first token of each row and of each segment.
        options: the options that transformers passes to every kernel: `scaling`, `dropout` and so on.

    Returns:
        `[rows, length, heads, size of a value]` in the dtype of `query`, or of autocast, and None in place of
        the weights.

    Raises:
        NotImplementedError: this architecture's attention can't be computed segment by segment.
    """
    if position_ids is None or options.get("position_bias") is not None:
        raise NotImplementedError("needs position_ids and no position_bias")
    rows, heads, length, _ = query.shape
    window = None if attention_mask is None else int(attention_mask)
    if varlen.runs_here(query, value, options):
        return varlen.varlen_attention(
            query, key, value, position_ids=position_ids, window=window, scaling=options.get("scaling")
        ), None
    layout = _segment_layout(position_ids, rows)
    sizes = [segments * longest for segments, longest in layout.shapes]
    parts = (
        states.transpose(1, 2).flatten(0, 1)[layout.padded].split(sizes) for states in (query, key, value)
    )
    attended = []
    for shape, *states in zip(layout.shapes, *parts, strict=True):
        q, k, v = (part.unflatten(0, shape).transpose(1, 2) for part in states)
        attended.append(_attend(module, q, k, v, window=window, **options).flatten(0, 1))
    return torch.cat(attended)[layout.restored].view(rows, length, heads, -1), None


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
    """Causal attention of a batch of segments: `[segments, length, heads, size]`.

    torch's kernel supports neither capped scores nor attention sinks. These use the architecture's own eager
    attention, which every modeling file of transformers has.
    """
    visible = _sliding_window_mask(query.shape[2], window, query.device)
    if options.get("softcap") is None and options.get("s_aux") is None:
        return F.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=visible,
            is_causal=visible is None,
            scale=scaling,
            dropout_p=dropout,
            enable_gqa=True,
        ).transpose(1, 2)
    if visible is None:
        visible = query.new_ones(query.shape[2], query.shape[2], dtype=torch.bool).tril()
    mask = torch.zeros_like(visible, dtype=query.dtype).masked_fill(~visible, torch.finfo(query.dtype).min)
    eager = sys.modules[type(module).__module__].eager_attention_forward
    attended: Tensor = eager(
        module, query, key, value, mask[None, None], scaling=scaling, dropout=dropout, **options
    )[0]
    return attended


def _sliding_window_mask(length: int, window: int | None, device: torch.device) -> Tensor | None:
    """Bool `[length, length]`: True for the last `window` tokens up to each; None if that is all."""
    if window is None or window >= length:
        return None
    return torch.ones(length, length, dtype=torch.bool, device=device).tril().triu(1 - window)


def _window(*, config: Any, local_size: int | None = None, **_: Any) -> Tensor | None:
    """The size of a layer's sliding window as a mask with a single number; None without a window.

    Not every architecture passes its window to the kernel, but all of them request a mask with it.
    """
    if local_size is None:
        return None
    if local_size == getattr(config, "attention_chunk_size", None):
        raise NotImplementedError("chunks of a document are not supported")
    return torch.tensor(local_size).view(1, 1, 1, 1)


AttentionInterface.register(NAME, packed_attention)
AttentionMaskInterface.register(NAME, _window)


@dataclass(frozen=True)
class _SegmentLayout:
    """Layout of the tokens of all rows, grouped into segments of similar lengths.

    In a group, shorter segments are padded with the tokens that follow them, which causal attention ignores.

    Attributes:
        padded: int64 `[padded tokens]`: for each token of the padded segments its index in the flat rows.
        restored: int64 `[tokens]`: for each token of the flat rows its index in `padded`.
        shapes: for each group its number of segments and their padded length.
    """

    padded: Tensor
    restored: Tensor
    shapes: list[tuple[int, int]]


@lru_cache(maxsize=1)  # all layers get the same tensor
def _segment_layout(position_ids: Tensor, rows: int) -> _SegmentLayout:
    positions = position_ids.expand(rows, -1).flatten()
    starts = (positions == 0).nonzero().squeeze(1)
    lengths = torch.diff(starts, append=starts.new_tensor([len(positions)]))
    indices, is_real, shapes = [], [], []
    shorter_than, longest = 0, FIRST_LIMIT
    while shorter_than < lengths.max():
        chosen = (lengths > shorter_than) & (lengths <= longest)
        if chosen.any():
            offsets = torch.arange(int(lengths[chosen].max()), device=positions.device)
            indices.append((starts[chosen, None] + offsets).clamp(max=len(positions) - 1).flatten())
            is_real.append((offsets < lengths[chosen, None]).flatten())
            shapes.append((int(chosen.sum()), len(offsets)))
        shorter_than, longest = longest, 2 * longest
    padded = torch.cat(indices)
    restored = torch.empty_like(positions)
    real = torch.cat(is_real).nonzero().squeeze(1)
    restored[padded[real]] = real
    return _SegmentLayout(padded, restored, shapes)


@contextmanager
def attending_within_segments(model: LlamaForCausalLM, kernel: str | None = None) -> Iterator[None]:
    """Context in which `model` uses `kernel`; batches must have `position_ids` and no mask.

    The default is `packed_attention`, and the model's own kernel for models whose layers carry state.
    `flash_attention_2` needs all rows joined to one, see `one_row`.

    Raises:
        ConfigError: the kernel is not installed or does not support this device.
    """
    chosen = kernel or (None if carries_state(model.config) else NAME)
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
    """Joins packed rows `[rows, length]` to one of `[1, rows * length]`; a row's first token is not trained.

    Kernels that need the lengths of the segments derive them from the positions of a single row only.
    """
    labels = batch["labels"].clone()
    labels[:, 0] = UNTRAINED  # it would be predicted from the previous row
    return {name: states.view(1, -1) for name, states in {**batch, "labels": labels}.items()}


class OneRowCollator:
    """Collates rows of a data set to a batch of one long row."""

    def __call__(self, rows: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
        return one_row({name: torch.stack([row[name] for row in rows]) for name in rows[0]})
