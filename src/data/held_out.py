"""The split into rows to train on and rows held out, which never shows one prompt on both sides."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from .rows import Comparison

T = TypeVar("T")


def opening(row: Any) -> str:
    """What a row is about, as a key for splits: its text, or its messages up to the first user's."""
    if isinstance(row, str):
        return row
    messages = row.prompt if isinstance(row, Comparison) else row.messages
    first_user = next(index for index, message in enumerate(messages) if message["role"] == "user")
    return json.dumps([message["content"] for message in messages[: first_user + 1]], ensure_ascii=False)


def split_held_out(
    rows: Sequence[T], held_out: float | int, seed: int, *, key: Callable[[T], str] = opening
) -> tuple[list[T], list[T]]:
    """Splits rows into (kept, held out), each in the old order; rows of one key stay together.

    `held_out`: a fraction of the keys (float, below 1) or at least so many rows (int). Which ones is
    decided by a hash of the key and the seed alone, so a row stays on its side when others come or go
    (with a fraction), whatever the order of the rows.
    """
    keys = [key(row) for row in rows]
    places = {name: place_of(name, seed) for name in keys}
    if isinstance(held_out, float):
        out = {name for name, place in places.items() if place < held_out}
    else:
        out, counts, taken = set(), Counter(keys), 0
        for name in sorted(places, key=places.__getitem__):
            if taken >= held_out:
                break
            out.add(name)
            taken += counts[name]
    kept = [row for row, name in zip(rows, keys, strict=True) if name not in out]
    return kept, [row for row, name in zip(rows, keys, strict=True) if name in out]


def place_of(key: str, seed: int) -> float:
    """A number in [0, 1) drawn for a key, from nothing but the key and the seed."""
    digest = hashlib.sha256(f"{seed}/{key}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
