"""Splits rows into training and held-out rows that share no prompt."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

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
    keys = [key(row) for row in rows]
    fractions = {name: hash_fraction(name, seed) for name in keys}
    if isinstance(held_out, float):
        held_out_keys = {name for name, fraction in fractions.items() if fraction < held_out}
    else:
        held_out_keys, rows_of, count = set(), Counter(keys), 0
        for name in sorted(fractions, key=fractions.__getitem__):
            if count >= held_out:
                break
            held_out_keys.add(name)
            count += rows_of[name]
    training = [row for row, name in zip(rows, keys, strict=True) if name not in held_out_keys]
    return training, [row for row, name in zip(rows, keys, strict=True) if name in held_out_keys]


def hash_fraction(key: str, seed: int) -> float:
    """Returns a number in [0, 1) that depends only on the key and the seed."""
    digest = hashlib.sha256(f"{seed}/{key}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
