"""Packed rows in memory-mapped files: tokenized and packed once, by the main process (see `packing.py`)."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa

from ..console import say, track
from ..data.row_files import IDS, Columns, IdLists, RowFolder, SealedRows, column, row_batches
from ..data.rows import Dialogue
from ..data.stored_rows import LazySequence
from ..distributed import group
from ..errors import DataError
from ..model.checkpoint import check_length
from ..model.padding import UNTRAINED
from .encoding import encode_dialogues, format_hash
from .packing import PackedRow, packed_row, plan_rows

# `trained`: number of trained tokens
ENCODED = pa.schema({"input_ids": IDS, "labels": IDS, "trained": pa.int32()})
PACKED = pa.schema(dict.fromkeys(PackedRow.__annotations__, IDS))


class PackedRows(LazySequence[PackedRow]):
    """Packed rows of equal length.

    Attributes:
        rows: the mapped rows, for a trainer.
        counts: `dialogues`, `rows`, `tokens`, `trained_tokens`, `fill` (share of tokens in the rows that are
            not pads) and `skipped` (dialogues by reason).
        length: number of tokens in a row.
        mean_position: mean of all `position_ids`.
    """

    def __init__(self, rows: datasets.Dataset, length: int, facts: Mapping[str, Any]) -> None:
        self.rows, self.length = rows.with_format("numpy"), length
        self.counts: dict[str, Any] = facts["counts"]
        self.mean_position: float = facts["positions"] / (len(rows) * length)

    def __len__(self) -> int:
        return len(self.rows)

    def element(self, index: int) -> PackedRow:
        row: PackedRow = self.rows[index]
        return row


def pack_dialogues(
    tokenizer: Any,
    dialogues: Sequence[Dialogue],
    max_length: int,
    *,
    context_length: int,
    seed: int,
    folder: Path,
    identity: Mapping[str, Any],
    one_per_row: bool = False,
) -> PackedRows:
    """Encodes and packs dialogues into files below `folder`, or opens those of an interrupted stage.

    Every rank calls it; only the main process reads `dialogues` and writes.

    Args:
        identity: what `dialogues` depend on, see `data.row_files.RowFolder`.
        one_per_row: for models that carry state from one dialogue to the next.

    Raises ConfigError if rows are longer than the model's context, DataError if no dialogue fits.
    """
    check_length("max_length", max_length, context_length)
    identity = {
        **identity,
        "format": format_hash(tokenizer),
        "max_length": max_length,
        "seed": seed,
        "one_per_row": one_per_row,
    }
    files = RowFolder(folder / "packed", PACKED, identity)

    def make() -> SealedRows:
        if found := files.sealed():
            return found
        encoded = _Encoded(tokenizer, dialogues, RowFolder(folder / "encoded", ENCODED, identity))
        plan = plan_rows(encoded.sizes, max_length, seed=seed, one_per_row=one_per_row)
        facts = {
            "counts": _counts(encoded, plan, max_length),
            "positions": _positions(encoded, plan, max_length),
        }
        written = files.write(
            lambda done: _rows(encoded, plan, max_length, pad_token_id=tokenizer.pad_token_id, done=done),
            lambda: facts,
        )
        shutil.rmtree(folder / "encoded")
        return written

    sealed = group.once("packing", make)
    if one_per_row:
        say("one dialogue per row: this architecture would carry state from one dialogue to the next")
    for reason, count in sealed.facts["counts"]["skipped"].items():
        say(f"skipped {count:,} dialogues: {reason}")
    return PackedRows(sealed.open(), max_length, sealed.facts)


class _Encoded:
    """Encoded dialogues in mapped files, which are written first if they are not complete."""

    def __init__(self, tokenizer: Any, dialogues: Sequence[Dialogue], files: RowFolder) -> None:
        def batches(done: int) -> Iterator[Columns]:
            progress = track(
                row_batches(dialogues, done),
                "tokenizing",
                total=len(dialogues),
                unit="dialogues",
                amount=len,
                done=done,
            )
            for batch in progress:
                encoded = encode_dialogues(tokenizer, batch)
                labels = [one.labels for one in encoded]
                yield {
                    "input_ids": [one.input_ids for one in encoded],
                    "labels": labels,
                    "trained": [len(one) - one.count(UNTRAINED) for one in labels],
                }

        rows = (files.sealed() or files.write(batches)).open()
        self._ids, self._labels = IdLists(column(rows, "input_ids")), IdLists(column(rows, "labels"))
        self.sizes: list[int] = self._ids.lengths.tolist()
        self.trained = column(rows, "trained").to_numpy()

    def row(self, indices: Sequence[int], length: int, pad_token_id: int) -> PackedRow:
        """The row of these dialogues."""
        ids, labels = ([part[index] for index in indices] for part in (self._ids, self._labels))
        return packed_row(ids, labels, length, pad_token_id=pad_token_id)


def _counts(encoded: _Encoded, plan: Sequence[Sequence[int]], length: int) -> dict[str, Any]:
    """The counts of `PackedRows`. Raises DataError if no dialogue fits into a row."""
    sizes = np.array(encoded.sizes, dtype=np.int64)
    if not plan:
        raise DataError(
            f"none of {len(sizes)} dialogues fits into a row of {length} tokens; raise max_length"
        )
    fits = sizes <= length
    tokens, too_long = int(sizes[fits].sum()), int((~fits).sum())
    return {
        "dialogues": int(fits.sum()),
        "rows": len(plan),
        "tokens": tokens,
        "trained_tokens": int(encoded.trained[fits].sum()),
        "fill": tokens / (len(plan) * length),
        "skipped": {f"longer than {length} tokens": too_long} if too_long else {},
    }


def _positions(encoded: _Encoded, plan: Sequence[Sequence[int]], length: int) -> int:
    """The sum of all `position_ids`, those of pads included."""
    total = 0
    for row in plan:
        segments = [encoded.sizes[index] for index in row]
        segments.append(length - sum(segments))
        total += sum(size * (size - 1) // 2 for size in segments)
    return total


def _rows(
    encoded: _Encoded, plan: Sequence[Sequence[int]], length: int, *, pad_token_id: int, done: int
) -> Iterator[Columns]:
    progress = track(row_batches(plan, done), "packing", total=len(plan), unit="rows", amount=len, done=done)
    for batch in progress:
        rows: list[Any] = [encoded.row(indices, length, pad_token_id) for indices in batch]
        yield {name: [row[name] for row in rows] for name in PACKED.names}
