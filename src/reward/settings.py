"""Settings of the stage `reward` (imports no torch)."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from ..data.settings import RowSettings
from ..settings import Source
from ..training.settings import COSINE_TO_10_PERCENT, RESERVED, TOKENIZED, TrainedSettings


class RewardSettings(RowSettings, TrainedSettings):
    """One reward model (section 3.2.2), begun from a chat checkpoint.

    In the paper a step has 512 pairs; `warmup_steps` are 3% of all steps, at least 5.
    """

    required_inputs: ClassVar[frozenset[str]] = frozenset({"model", "data"})
    trainer_class: ClassVar[str | None] = "trl.RewardConfig"
    trainer_reserved: ClassVar[dict[str, str]] = (
        RESERVED
        | TOKENIZED
        | {"max_length": "it is the stage's own `max_length`; longer pairs are refused and counted"}
    )

    trainer_defaults: ClassVar[dict[str, Any]] = {
        "learning_rate": 1e-5,
        "num_train_epochs": 1,  # more over-fits
    } | COSINE_TO_10_PERCENT

    kind: Literal["helpfulness", "safety"]
    """what the annotators were asked to compare"""
    comparisons: list[Source] = Field(min_length=1)
    """two answers to one prompt, the better one known"""
    test: list[Source] = []
    """held-out comparisons, whose prompts are not trained; see `held_out` for data sets that have none"""
    held_out: int = Field(0, ge=0)
    """how many of `comparisons` to hold out; no prompt stands on both sides"""
    mix: list[Source] = []
    """comparisons of ordinary answers, safe unless labelled, for the safety model (90/10 in the paper)"""
    mix_share: float = Field(0.1, gt=0, lt=1)
    """their share of the training pairs"""
    margin: Literal["none", "small", "large"] = "small"
    """table 27"""
    safety_loss_weight: float = Field(0.0, ge=0)
    """of the auxiliary safety loss; the paper names none"""
    max_length: int = Field(4096, gt=1)
    """tokens of prompt and answer; longer pairs are left out and counted"""
    truncate_prompts: bool = False
    """longer pairs stay instead, their prompts without the oldest tokens, and are counted as cut"""

    @property
    def row_tokens(self) -> int:
        return 2 * self.max_length

    @property
    def step_rows(self) -> int:
        return 512

    @model_validator(mode="after")
    def _fits(self) -> RewardSettings:
        if bool(self.test) == bool(self.held_out):
            raise ValueError("test: give either `test` sources or a number `held_out`")
        if self.kind == "helpfulness" and (self.mix or self.safety_loss_weight):
            raise ValueError("kind: `mix` and `safety_loss_weight` belong to the safety model")
        return self
