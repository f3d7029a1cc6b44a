"""Packs dialogues into rows of equal length, so that batches contain little padding (section 3.1).

Several dialogues share a row; `position_ids` restart with each. Llama attends within each dialogue only if it
gets `position_ids`, no `attention_mask`, and `use_cache=False`: the loss is that of the single dialogues.
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
    one_per_row: bool = False,
) -> tuple[list[PackedRow], dict[str, Any]]:
    """Encodes and packs dialogues; `one_per_row` is for models that carry state from one to the next.

    Returns the rows, and counts: `dialogues`, `rows`, `tokens`, `trained_tokens`, `fill` (share of tokens in
    the rows that are not pads) and `skipped` (dialogues by reason).
    Raises ConfigError if rows are longer than the model's context, DataError if no dialogue fits.
    """
    check_length("max_length", max_length, context_length)
    encoded = encode_dialogues(tokenizer, dialogues)
    rows = pack(encoded, max_length, tokenizer.pad_token_id, seed=seed, one_per_row=one_per_row)
    if not rows:
        raise DataError(
            f"none of {len(encoded)} dialogues fits into a row of {max_length} tokens; raise max_length"
        )
    if one_per_row:
        say("one dialogue per row: this architecture would carry state from one dialogue to the next")
    for reason, count in rows.skipped.items():
        say(f"skipped {count:,} dialogues: {reason}")
    packed = [dialogue for dialogue in encoded if len(dialogue.input_ids) <= max_length]
    tokens = sum(len(dialogue.input_ids) for dialogue in packed)
    return list(rows), {
        "dialogues": len(packed),
        "rows": len(rows),
        "tokens": tokens,
        "trained_tokens": sum(label != UNTRAINED for dialogue in packed for label in dialogue.labels),
        "fill": tokens / (len(rows) * max_length),
        "skipped": dict(rows.skipped),
    }


def pack(
    encoded: Sequence[Encoded], length: int, pad_token_id: int, *, seed: int, one_per_row: bool = False
) -> Rows[PackedRow]:
    """Packs dialogues into rows of `length` tokens by best fit (or one per row); no dialogue is truncated.

    The order is drawn from the generator `"{seed}/packing"`, so that every row is a random sample. Sorting by
    length would fill rows a little better, but some rows would have only long dialogues, with few trained
    answers, and some only short ones. Pads fill the end of a row as a segment of their own. Dialogues longer
    than a row are dropped and counted in `.skipped` of the returned list.
    """
    encoded = random.Random(f"{seed}/packing").sample(encoded, len(encoded))
    sizes = [len(dialogue.input_ids) for dialogue in encoded]
    bins = (
        [[index] for index, size in enumerate(sizes) if size <= length]
        if one_per_row
        else best_fit(sizes, length)
    )
    rows = [_row([encoded[index] for index in bin], length, pad_token_id) for bin in bins]
    too_long = sum(size > length for size in sizes)
    return Rows(rows, Counter({f"longer than {length} tokens": too_long} if too_long else {}))


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
    """Stacks packed rows: `input_ids`, `labels`, `position_ids`, each int64 of shape (rows, length)."""

    def __call__(self, rows: Sequence[PackedRow]) -> dict[str, torch.Tensor]:
        return {
            name: torch.from_numpy(
                np.stack([row[name] for row in rows])  # type: ignore[literal-required]  # names of the TypedDict
            ).long()
            for name in PackedRow.__annotations__
        }
