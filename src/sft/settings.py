"""Settings of the stage `sft` (imports no torch)."""

from __future__ import annotations

from typing import ClassVar, Literal

from ..training.settings import FineTunedSettings


class SftSettings(FineTunedSettings):
    """Supervised fine-tuning (section 3.1), also on dialogues of Ghost Attention and context distillation."""

    required_inputs: ClassVar[frozenset[str]] = frozenset({"model", "data"})
    publishes_language_model: ClassVar[bool] = True

    chat_format: Literal["own", "llama2"] = "own"
    """chat template of the new model: `own` (that of the base model's tokenizer) or `llama2`"""
