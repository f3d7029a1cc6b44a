"""Settings of the stage `rejection` (imports no torch)."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import model_validator

from ...data.settings import DialogueSettings
from ...training.settings import FineTunedSettings
from ..settings import Count, Positive, RlhfSettings


class RejectionSettings(RlhfSettings, FineTunedSettings):
    """Rejection sampling (section 3.2.3): fine-tunes the base model on the best of K answers per prompt.

    `trainer: {max_steps: …}` is required: the number of steps, the same in every round.
    """

    prompts_per_round: Count
    """number of prompts per round; prompts that earlier rounds (`selections`) used least often come first"""
    num_generations: Count = 10
    """K, the number of answers sampled per prompt"""
    temperature: Positive = 1.2
    """sampling temperature; the paper: 1.2 to 1.3 for 10 to 100 samples from an RLHF model"""
    selection_repeats: Count = 1
    """repetitions of each selected answer in the fine-tuning data (demonstrations: one)"""

    required_inputs: ClassVar[frozenset[str]] = frozenset({"base", "model", "helpfulness", "safety", "data"})
    optional_inputs: ClassVar[frozenset[str]] = DialogueSettings.optional_inputs | {"judge"}
    listed_inputs: ClassVar[frozenset[str]] = frozenset({"selections"})

    @model_validator(mode="after")
    def _has_max_steps(self) -> RejectionSettings:
        steps: Any = self.trainer.get("max_steps")
        if not isinstance(steps, int) or steps < 1:
            raise ValueError(
                f"trainer: max_steps is {steps}; set the number of steps, the same in every round (3.2.3)"
            )
        return self
