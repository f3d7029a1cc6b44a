"""Attention over packed rows with torch's flash attention for sequences of different lengths, on GPUs."""

from __future__ import annotations

import inspect
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.attention.varlen import varlen_attn

HALF = (torch.float16, torch.bfloat16)
CAPABILITY = (8, 0)  # of the GPU: Ampere or later
LARGEST_HEAD = 256
# Before torch 2.12, fewer key than query heads needed no flag.
GROUPED_HEADS: dict[str, Any] = (
    {"enable_gqa": True} if "enable_gqa" in inspect.signature(varlen_attn).parameters else {}
)


def runs_here(query: Tensor, value: Tensor, options: dict[str, Any]) -> bool:
    """Whether `varlen_attention` supports these states: their device, precision and sizes, and the options.

    Args:
        query: `[rows, heads, length, size]`.
        value: the same with another number of heads, and possibly another size.
        options: the options that transformers passes to every kernel.
    """
    size = query.shape[-1]
    return (
        query.is_cuda
        and _dtype(query) in HALF
        and torch.cuda.get_device_capability(query.device) >= CAPABILITY
        and size % 8 == 0
        and size <= LARGEST_HEAD
        and value.shape[-1] == size
        and not options.get("dropout")
        and options.get("softcap") is None
        and options.get("s_aux") is None
    )


def varlen_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    position_ids: Tensor,
    window: int | None,
    scaling: float | None,
) -> Tensor:
    """Causal attention within each segment, as `attention.packed_attention` with the same arguments.

    Returns:
        `[rows, length, heads, size]` in the dtype of `query`, under autocast in autocast's.
    """
    rows, _, length, _ = query.shape
    segments = _segments(position_ids, rows)
    q, k, v = (part.transpose(1, 2).flatten(0, 1).to(_dtype(query)) for part in (query, key, value))
    attended: Any = varlen_attn(
        q,
        k,
        v,
        segments.ends,
        segments.ends,
        segments.longest,
        segments.longest,
        scale=scaling,
        window_size=(-1 if window is None else window - 1, 0),
        **GROUPED_HEADS,
    )
    return attended.unflatten(0, (rows, length))


def _dtype(query: Tensor) -> torch.dtype:
    """The dtype of the computation. Autocast does not know this kernel, and rotary positions are in fp32."""
    return torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else query.dtype


class _Segments(NamedTuple):
    """The segments of all rows, one row after the other.

    Attributes:
        ends: int32 `[segments + 1]`: 0, then the token after the end of each segment.
        longest: length of the longest segment.
    """

    ends: Tensor
    longest: int


@lru_cache(maxsize=1)  # all layers get the same tensor
def _segments(position_ids: Tensor, rows: int) -> _Segments:
    positions = position_ids.expand(rows, -1).flatten()
    starts = (positions == 0).nonzero().squeeze(1)
    ends = torch.cat((starts, starts.new_tensor([len(positions)])))
    return _Segments(ends.to(torch.int32), int(ends.diff().max()))
