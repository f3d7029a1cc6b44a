"""Cutting a list into batches."""

from __future__ import annotations

from typing import TypeVar

T = TypeVar("T")


def batches(items: list[T], size: int) -> list[list[T]]:
    """`items` in their order, `size` at a time, the last batch shorter (Python 3.12: itertools.batched)."""
    return [items[start : start + size] for start in range(0, len(items), size)]
