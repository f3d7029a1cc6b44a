"""The dialogues that fine-tuning trains on: demonstrations, and those of Ghost Attention."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ..settings import Source
from .ghost_attention import instruction_on_first_turn
from .intake import Intake
from .rows import Dialogue
from .sources import read_dialogues


def fine_tuning_dialogues(
    dialogues: Sequence[Source],
    ghost_attention: Sequence[Source],
    root: Path,
    *,
    gatt_root: Path | None = None,
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
