"""Reads the dialogues for fine-tuning: demonstrations, Ghost Attention, context distillation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from .ghost_attention import instruction_on_first_turn
from .intake import Intake
from .rows import Dialogue
from .settings import DialogueSettings
from .sources import stream_dialogues
from .stored_rows import StoredRows, store_rows


def stored_dialogues(
    settings: DialogueSettings,
    inputs: Mapping[str, Path],
    folder: Path,
    *,
    identity: Mapping[str, Any],
    intake: Intake,
) -> StoredRows[Dialogue]:
    """The rows of `fine_tuning_dialogues`, read once by the main process into a folder below `folder`.

    `identity`: what besides the sources decides which rows are read, see `store_rows`; every rank calls it.
    """
    names = ("dialogues", "ghost_attention", "distillation")
    dialogues, _ = store_rows(
        folder / "dialogues",
        Dialogue,
        {"all": lambda intake: fine_tuning_dialogues(settings, inputs, intake)},
        identity={**settings.model_dump(mode="json", include=set(names)), **identity},
        sources=[(getattr(settings, name), inputs[settings.input_of(name, inputs)]) for name in names],
        intake=intake,
    )
    return dialogues


def fine_tuning_dialogues(
    settings: DialogueSettings, inputs: Mapping[str, Path], intake: Intake | None = None
) -> Iterator[Dialogue]:
    """Yields demonstrations, then dialogues of Ghost Attention (section 3.3) and of distillation (4.2.4).

    Of the latter two only the last answer is trained. A Ghost Attention dialogue without instruction is the
    control for a model that is trained without instructions.

    Args:
        inputs: the stage's inputs; those that `DialogueSettings.below` names may be missing.
    """
    intake = intake or Intake()

    def read(setting: str) -> Iterator[Dialogue]:
        root = inputs[settings.input_of(setting, inputs)]
        return stream_dialogues(getattr(settings, setting), root, intake)

    yield from read("dialogues")
    for dialogue in read("ghost_attention"):
        yield (
            instruction_on_first_turn(dialogue) if dialogue.instruction else replace(dialogue, trained="last")
        )
    for dialogue in read("distillation"):
        yield replace(dialogue, trained="last")
