"""Splits lists into batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import torch

T = TypeVar("T")

# Tokens, padding included, in one forward pass without gradients (on GPUs, on CPUs): a CPU is twice as fast
# if the hidden states fit its caches.
_TOKENS_AT_ONCE = (65_536, 8_192)


def batches(items: list[T], size: int) -> list[list[T]]:
    """Splits `items` in order into batches of `size`, the last one shorter (itertools.batched of 3.12)."""
    return [items[start : start + size] for start in range(0, len(items), size)]


def batches_by_length(lengths: Sequence[int], size: int | None, tokens: int) -> list[list[int]]:
    """Batches of row indices, sorted by length so that there is little padding.

    Args:
        lengths: number of tokens of each row.
        size: maximum number of rows in a batch; None: any number.
        tokens: maximum number of tokens in a batch, padding included; a longer row gets a batch of its own.
    """
    result: list[list[int]] = []
    for row in sorted(range(len(lengths)), key=lambda row: lengths[row]):
        if not result or len(result[-1]) == size or (len(result[-1]) + 1) * lengths[row] > tokens:
            result.append([])
        result[-1].append(row)
    return result


def tokens_at_once(device: torch.device) -> int:
    """Number of tokens for one forward pass without gradients on this device."""
    return _TOKENS_AT_ONCE[device.type == "cpu"]
