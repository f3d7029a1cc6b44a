"""The rows that fine-tuning trains on: demonstrations and Ghost Attention dialogues, encoded and packed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..console import say
from ..data.ghost_attention import instruction_on_first_turn
from ..data.intake import Intake
from ..data.rows import Dialogue
from ..data.sources import read_dialogues
from ..errors import DataError
from ..model.checkpoint import check_length
from ..model.padding import UNTRAINED
from ..settings import Source
from .encoding import encode_dialogues
from .packing import PackedRow, pack


def fine_tuning_dialogues(
    dialogues: Sequence[Source],
    ghost_attention: Sequence[Source],
    root: Path,
    gatt_root: Path | None = None,
    *,
    intake: Intake | None = None,
) -> list[Dialogue]:
    """Demonstrations as they are, and Ghost Attention dialogues trained on their last answer (section 3.3).

    Sources are below `root`, those of Ghost Attention below `gatt_root` where it is given. One without an
    instruction is the same dialogue for a model that never hears of one.
    """
    intake = intake or Intake()
    plain = read_dialogues(dialogues, root, intake)
    multi_turn = read_dialogues(ghost_attention, gatt_root or root, intake)
    augmented = [
        instruction_on_first_turn(one) if one.instruction else replace(one, trained="last")
        for one in multi_turn
    ]
    return [*plain, *augmented]


def pack_dialogues(
    tokenizer: Any,
    dialogues: Sequence[Dialogue],
    row_length: int,
    context_length: int,
    seed: int,
    *,
    alone: bool = False,
) -> tuple[list[PackedRow], dict[str, Any]]:
    """Encodes and packs dialogues; with `alone` one to a row, for models that carry state between them.

    Returns the rows, and counts: `dialogues`, `rows`, `tokens`, `trained_tokens`, `fill` (share of the rows
    that is no pad) and `skipped` (dialogues by reason).
    Raises ConfigError for rows above the model's context, DataError where no dialogue is left.
    """
    check_length("row_length", row_length, context_length)
    encoded = encode_dialogues(tokenizer, dialogues)
    rows = pack(encoded, row_length, tokenizer.pad_token_id, seed, alone=alone)
    if not rows:
        raise DataError(f"none of {len(encoded)} dialogues fits into a row of {row_length} tokens")
    if alone:
        say("one dialogue a row: this architecture carries its state from one to the next")
    for reason, count in rows.skipped.items():
        say(f"{count:,} dialogues left out: {reason}")
    kept = [one for one in encoded if len(one.input_ids) <= row_length]
    tokens = sum(len(one.input_ids) for one in kept)
    return list(rows), {
        "dialogues": len(kept),
        "rows": len(rows),
        "tokens": tokens,
        "trained_tokens": sum(label != UNTRAINED for one in kept for label in one.labels),
        "fill": tokens / (len(rows) * row_length),
        "skipped": dict(rows.skipped),
    }
