"""Settings of the stage `sft` (imports no torch)."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from ..settings import Source
from ..training.settings import FineTunedSettings


class SftSettings(FineTunedSettings):
    """Supervised fine-tuning (section 3.1), optionally with Ghost Attention (section 3.3)."""

    required_inputs: ClassVar[frozenset[str]] = frozenset({"model", "data"})
    optional_inputs: ClassVar[frozenset[str]] = frozenset({"gatt"})
    publishes_language_model: ClassVar[bool] = True

    dialogues: list[Source] = Field(min_length=1)
    """sources of dialogues in which all answers are trained"""
    ghost_attention: list[Source] = []
    """sources of dialogues in which only the last answer is trained, in the input `gatt` if there is one,
    otherwise in `data`; the `instruction` of a dialogue is kept in its first turn only"""
    chat_format: Literal["own", "llama2"] = "own"
    """chat template of the new model: `own` (that of the base model's tokenizer) or `llama2`"""
