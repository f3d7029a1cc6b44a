"""Settings of the stage `rejection` (imports no torch)."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import Field, model_validator

from ...settings import Source
from ...training.settings import FineTunedSettings
from ..settings import Count, Positive, RlhfSettings


class RejectionSettings(RlhfSettings, FineTunedSettings):
    """Rejection sampling (section 3.2.3): the base model, fine-tuned on the best of K answers to a prompt."""

    prompts_per_round: Count
    """prompts to sample answers for: those that the rounds given as `selections` took least often"""
    num_generations: Count = 10
    """K"""
    temperature: Positive = 1.2
    """of the sampled answers; the paper: 1.2 to 1.3 for 10 to 100 samples of an RLHF model"""
    selection_repeats: Count = 1
    """repetitions of each selected answer in the fine-tuning data (demonstrations: one)"""
    dialogues: Annotated[list[Source], Field(min_length=1)]
    """what the base model is fine-tuned on in every round, beside the best answers: the rows of SFT"""
    ghost_attention: list[Source] = []
    """dialogues with an instruction (section 3.3), likewise; below the input `gatt`, or else `data`"""

    required_inputs: ClassVar[frozenset[str]] = frozenset({"base", "model", "helpfulness", "safety", "data"})
    optional_inputs: ClassVar[frozenset[str]] = frozenset({"gatt"})
    listed_inputs: ClassVar[frozenset[str]] = frozenset({"selections"})

    @model_validator(mode="after")
    def _every_round_takes_as_many_steps(self) -> RejectionSettings:
        steps: Any = self.trainer.get("max_steps")
        if not isinstance(steps, int) or steps < 1:
            raise ValueError(
                "trainer: max_steps is missing; every round fine-tunes for the same number of steps (3.2.3)"
            )
        return self
