"""Packs dialogues into rows of equal length, so that batches contain little padding (section 3.1).

Several dialogues share a row; `position_ids` restart with each. Llama attends within each dialogue only if it
gets `position_ids`, no `attention_mask`, and `use_cache=False`: the loss is that of the single dialogues.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TypedDict

import numpy as np
import torch

from ..model.padding import UNTRAINED

Ids = Sequence[int] | np.ndarray


class PackedRow(TypedDict):
    """One row: three int32 arrays of shape (length,). Labels of pads and untrained tokens are -100."""

    input_ids: np.ndarray
    labels: np.ndarray
    position_ids: np.ndarray


def plan_rows(sizes: Sequence[int], length: int, *, seed: int, one_per_row: bool = False) -> list[list[int]]:
    """Assigns dialogues of `sizes` tokens to rows of `length` tokens; returns the dialogues of each row.

    By best fit, or one per row; no dialogue is truncated, longer ones are in no row. The order is drawn from
    the generator `"{seed}/packing"`, so that every row is a random sample. Sorting by length would fill rows
    a little better, but some rows would have only long dialogues, with few trained answers, and some only
    short ones.
    """
    order = random.Random(f"{seed}/packing").sample(range(len(sizes)), len(sizes))
    if one_per_row:
        return [[index] for index in order if sizes[index] <= length]
    rows = best_fit([sizes[index] for index in order], length)
    return [[order[place] for place in row] for row in rows]


def best_fit(sizes: Sequence[int], capacity: int) -> list[list[int]]:
    """Assigns sizes, in order, to bins of `capacity`, each to the fullest bin with enough free space.

    Returns the indices of `sizes` in each bin. Sizes above the capacity are in no bin.
    """
    bins: list[list[int]] = []
    with_space: list[list[int]] = [[] for _ in range(capacity + 1)]  # free space -> bins that have it
    spaces = 0  # bit s is set if with_space[s] is not empty
    for index, size in enumerate(sizes):
        if size > capacity:
            continue
        fitting = spaces >> size
        if fitting:
            space = size + (fitting & -fitting).bit_length() - 1  # lowest bit set: least space that suffices
            bin = with_space[space].pop()
            if not with_space[space]:
                spaces ^= 1 << space
        else:
            space, bin = capacity, len(bins)
            bins.append([])
        bins[bin].append(index)
        with_space[space - size].append(bin)
        spaces |= 1 << (space - size)
    return bins


def packed_row(ids: Sequence[Ids], labels: Sequence[Ids], length: int, *, pad_token_id: int) -> PackedRow:
    """One row of `length` tokens: dialogues by ids and labels, then pads as a segment of their own."""
    segments = [len(part) for part in ids]
    pads = length - sum(segments)
    segments.append(pads)
    return {
        "input_ids": _array([*ids, [pad_token_id] * pads]),
        "labels": _array([*labels, [UNTRAINED] * pads]),
        "position_ids": _array([range(segment) for segment in segments]),
    }


def _array(parts: Sequence[Ids | range]) -> np.ndarray:
    return np.concatenate([np.asarray(part, dtype=np.int32) for part in parts])


class PackedCollator:
    """Stacks packed rows: `input_ids`, `labels`, `position_ids`, each int64 of shape (rows, length)."""

    def __call__(self, rows: Sequence[PackedRow]) -> dict[str, torch.Tensor]:
        return {
            name: torch.from_numpy(
                np.stack([row[name] for row in rows])  # type: ignore[literal-required]  # names of the TypedDict
            ).long()
            for name in PackedRow.__annotations__
        }
