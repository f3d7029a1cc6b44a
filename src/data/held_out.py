"""Splits rows into training and held-out rows that share no prompt."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

from .rows import Comparison

T = TypeVar("T")


def opening(row: Any) -> str:
    """Returns a row's key for splits: its text, or its messages up to the first user message."""
    if isinstance(row, str):
        return row
    messages = row.prompt if isinstance(row, Comparison) else row.messages
    first_user = next(index for index, message in enumerate(messages) if message["role"] == "user")
    return json.dumps([message["content"] for message in messages[: first_user + 1]], ensure_ascii=False)


def split_held_out(
    rows: Sequence[T], held_out: float | int, seed: int, *, key: Callable[[T], str] = opening
) -> tuple[list[T], list[T]]:
    """Splits rows into (training, held out), in their order; rows with equal keys are in the same part.

    `held_out`: fraction of the keys (float below 1), or minimum number of rows (int). Only a hash of key and
    seed decides, so the order of the rows has no influence, and with a fraction a row's part does not change
    when other rows are added or removed.
    """
    fractions = np.array([hash_fraction(key(row), seed) for row in rows], dtype=np.float64)
    held = held_out_mask(fractions, held_out).tolist()
    training = [row for row, out in zip(rows, held, strict=True) if not out]
    return training, [row for row, out in zip(rows, held, strict=True) if out]


def held_out_mask(fractions: np.ndarray, held_out: float | int) -> np.ndarray:
    """Which rows are held out (bool, `[rows]`), by the `hash_fraction` of each row's key (float64, `[rows]`).

    `held_out` as in `split_held_out`: the keys with the smallest fractions are held out.
    """
    if isinstance(held_out, float):
        return fractions < held_out
    different, counts = np.unique(fractions, return_counts=True)
    before = np.cumsum(counts) - counts  # number of rows with smaller fractions
    return np.isin(fractions, different[before < held_out])


def hash_fraction(key: str, seed: int) -> float:
    """Returns a number in [0, 1) that depends only on the key and the seed."""
    digest = hashlib.sha256(f"{seed}/{key}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
