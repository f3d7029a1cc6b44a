"""Dialogues packed into rows of one length, so that no batch is half padding (section 3.1).

Several dialogues share a row; `position_ids` restart with each. Llama keeps them apart by that alone if it
gets `position_ids`, no `attention_mask`, and `use_cache=False`: the loss is that of the dialogues one by one.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from typing import Any, TypedDict

import numpy as np
import torch

from ..console import say
from ..data.rows import Dialogue, Rows
from ..errors import DataError
from ..model.checkpoint import check_length
from ..model.padding import UNTRAINED
from .encoding import Encoded, encode_dialogues


class PackedRow(TypedDict):
    """One row: three int32 arrays of shape (length,). Labels of pads and untrained tokens are -100."""

    input_ids: np.ndarray
    labels: np.ndarray
    position_ids: np.ndarray


def pack_dialogues(
    tokenizer: Any,
    dialogues: Sequence[Dialogue],
    max_length: int,
    *,
    context_length: int,
    seed: int,
    alone: bool = False,
) -> tuple[list[PackedRow], dict[str, Any]]:
    """Encodes and packs dialogues; with `alone` one to a row, for models that carry state between them.

    Returns the rows, and counts: `dialogues`, `rows`, `tokens`, `trained_tokens`, `fill` (share of the rows
    that is no pad) and `skipped` (dialogues by reason).
    Raises ConfigError for rows above the model's context, DataError where no dialogue is left.
    """
    check_length("max_length", max_length, context_length)
    encoded = encode_dialogues(tokenizer, dialogues)
    rows = pack(encoded, max_length, tokenizer.pad_token_id, seed=seed, alone=alone)
    if not rows:
        raise DataError(f"none of {len(encoded)} dialogues fits into a row of {max_length} tokens")
    if alone:
        say("one dialogue a row: this architecture carries its state from one to the next")
    for reason, count in rows.skipped.items():
        say(f"{count:,} dialogues left out: {reason}")
    kept = [one for one in encoded if len(one.input_ids) <= max_length]
    tokens = sum(len(one.input_ids) for one in kept)
    return list(rows), {
        "dialogues": len(kept),
        "rows": len(rows),
        "tokens": tokens,
        "trained_tokens": sum(label != UNTRAINED for one in kept for label in one.labels),
        "fill": tokens / (len(rows) * max_length),
        "skipped": dict(rows.skipped),
    }


def pack(
    encoded: Sequence[Encoded], length: int, pad_token_id: int, *, seed: int, alone: bool = False
) -> Rows[PackedRow]:
    """Packs dialogues into rows of `length` tokens by best fit, or with `alone` one to a row; none is cut.

    They come in an order drawn from the generator `"{seed}/packing"`, so that every row is a fair sample.
    Longest first would fill rows a little better, but make some of long dialogues only, with few answers to
    learn from, and some of short ones. What is left of a row becomes a segment of pads. Dialogues longer than
    a row are refused and counted in `.skipped` of the returned list.
    """
    encoded = random.Random(f"{seed}/packing").sample(encoded, len(encoded))
    sizes = [len(one.input_ids) for one in encoded]
    bins = (
        [[index] for index, size in enumerate(sizes) if size <= length] if alone else best_fit(sizes, length)
    )
    rows = [_row([encoded[index] for index in bin], length, pad_token_id) for bin in bins]
    refused = sum(size > length for size in sizes)
    return Rows(rows, Counter({f"longer than {length} tokens": refused} if refused else {}))


def best_fit(sizes: Sequence[int], capacity: int) -> list[list[int]]:
    """Indices of `sizes` in bins of `capacity`: each in turn goes where the least room is left that suffices.

    Sizes above the capacity are in no bin.
    """
    bins: list[list[int]] = []
    with_room: list[list[int]] = [[] for _ in range(capacity + 1)]  # room left -> bins that have it
    rooms = 0  # bit r is set where with_room[r] is not empty
    for index, size in enumerate(sizes):
        if size > capacity:
            continue
        fitting = rooms >> size
        if fitting:
            room = size + (fitting & -fitting).bit_length() - 1  # lowest bit set: least room that suffices
            bin = with_room[room].pop()
            if not with_room[room]:
                rooms ^= 1 << room
        else:
            room, bin = capacity, len(bins)
            bins.append([])
        bins[bin].append(index)
        with_room[room - size].append(bin)
        rooms |= 1 << (room - size)
    return bins


def _row(parts: Sequence[Encoded], length: int, pad_token_id: int) -> PackedRow:
    pads = length - sum(len(part.input_ids) for part in parts)
    segments = [len(part.input_ids) for part in parts] + [pads]
    return {
        "input_ids": _array([*(part.input_ids for part in parts), [pad_token_id] * pads]),
        "labels": _array([*(part.labels for part in parts), [UNTRAINED] * pads]),
        "position_ids": _array([range(segment) for segment in segments]),
    }


def _array(parts: Sequence[Sequence[int]]) -> np.ndarray:
    return np.concatenate([np.asarray(part, dtype=np.int32) for part in parts])


class PackedCollator:
    """Packed rows to a batch: `input_ids`, `labels`, `position_ids`, each int64 of shape (rows, length)."""

    def __call__(self, rows: Sequence[PackedRow]) -> dict[str, torch.Tensor]:
        return {
            name: torch.from_numpy(
                np.stack([row[name] for row in rows])  # type: ignore[literal-required]  # the row's own names
            ).long()
            for name in PackedRow.__annotations__
        }
