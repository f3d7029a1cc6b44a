"""Settings of the stage `sft` (imports no torch)."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from ..settings import Source
from ..training.settings import FineTunedSettings


class SftSettings(FineTunedSettings):
    """Supervised fine-tuning (section 3.1), multi-turn sets augmented by Ghost Attention (section 3.3)."""

    required_inputs: ClassVar[frozenset[str]] = frozenset({"model", "data"})
    optional_inputs: ClassVar[frozenset[str]] = frozenset({"gatt"})
    publishes_language_model: ClassVar[bool] = True

    dialogues: list[Source] = Field(min_length=1)
    """dialogues whose answers are all trained"""
    ghost_attention: list[Source] = []
    """dialogues whose last answer alone is trained, below the input `gatt`, or else `data`; an `instruction`
    is kept in the first turn only"""
    chat_format: Literal["own", "llama2"] = "own"
    """`own`: as the chat template of the base model's tokenizer says; `llama2`: Llama 2's in place of it"""
