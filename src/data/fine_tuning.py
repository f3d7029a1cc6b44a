"""Reads the dialogues for fine-tuning: demonstrations, Ghost Attention, context distillation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from .ghost_attention import instruction_on_first_turn
from .intake import Intake
from .rows import Dialogue
from .settings import DialogueSettings
from .sources import read_dialogues


def fine_tuning_dialogues(
    settings: DialogueSettings, inputs: Mapping[str, Path], intake: Intake | None = None
) -> list[Dialogue]:
    """Returns demonstrations, then dialogues of Ghost Attention (section 3.3) and of distillation (4.2.4).

    Of the latter two only the last answer is trained. A Ghost Attention dialogue without instruction is the
    control for a model that is trained without instructions.

    Args:
        inputs: the stage's inputs; those that `DialogueSettings.below` names may be missing.
    """
    intake = intake or Intake()

    def read(setting: str) -> list[Dialogue]:
        root = inputs[settings.input_of(setting, inputs)]
        return read_dialogues(getattr(settings, setting), root, intake)

    plain = read("dialogues")
    augmented = [
        instruction_on_first_turn(dialogue) if dialogue.instruction else replace(dialogue, trained="last")
        for dialogue in read("ghost_attention")
    ]
    distilled = [replace(dialogue, trained="last") for dialogue in read("distillation")]
    return [*plain, *augmented, *distilled]
