"""Reads the dialogues for fine-tuning: demonstrations and Ghost Attention dialogues."""

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
    """Returns demonstrations, then Ghost Attention dialogues trained on their last answer (section 3.3).

    Source paths are relative to `root`, those of Ghost Attention to `gatt_root` if it is given. A Ghost
    Attention dialogue without instruction is the control for a model that is trained without instructions.
    """
    intake = intake or Intake()
    plain = read_dialogues(dialogues, root, intake)
    multi_turn = read_dialogues(ghost_attention, gatt_root or root, intake)
    augmented = [
        instruction_on_first_turn(dialogue) if dialogue.instruction else replace(dialogue, trained="last")
        for dialogue in multi_turn
    ]
    return [*plain, *augmented]
