"""Cutting a list into batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import torch

T = TypeVar("T")

# Tokens, pads included, that a forward pass without gradients reads at once (on GPUs, on CPUs): a CPU is
# twice as fast while the states stay in its caches.
_TOKENS_AT_ONCE = (65_536, 8_192)


def batches(items: list[T], size: int) -> list[list[T]]:
    """`items` in their order, `size` at a time, the last batch shorter (Python 3.12: itertools.batched)."""
    return [items[start : start + size] for start in range(0, len(items), size)]


def batches_by_length(lengths: Sequence[int], size: int, tokens: int) -> list[list[int]]:
    """The indices of rows of these lengths, from the shortest to the longest, so that little is padded.

    Args:
        lengths: in tokens, of each row.
        size: rows of a batch, at most.
        tokens: of a batch, pads included, at most; a longer row has a batch of its own.
    """
    cut: list[list[int]] = []
    for row in sorted(range(len(lengths)), key=lambda row: lengths[row]):
        if not cut or len(cut[-1]) == size or (len(cut[-1]) + 1) * lengths[row] > tokens:
            cut.append([])
        cut[-1].append(row)
    return cut


def tokens_at_once(device: torch.device) -> int:
    """How many tokens a forward pass without gradients is to read on this device."""
    return _TOKENS_AT_ONCE[device.type == "cpu"]
