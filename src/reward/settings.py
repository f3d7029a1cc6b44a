"""Settings of the stage `reward` (imports no torch)."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from ..data.settings import RowSettings
from ..settings import Settings, Source
from ..training.settings import COSINE_TO_10_PERCENT, RESERVED, TOKENIZED, TrainedSettings


class EvasionSettings(Settings):
    """Comparisons of an ordinary prompt's reference answer (chosen) and an evasion, such as "I don't know".

    Without them a helpfulness model may score an evasion above an attempt with an error.
    """

    dialogues: list[Source] = Field(min_length=1)
    """sources of dialogues with ordinary prompts; each one's last answer is the reference answer"""
    answers: list[Source] = Field(min_length=1)
    """sources of labelled answers, of which the refusals are the evasions; read from the input `refusals`, or
    from `data` without it"""
    count: int = Field(ge=1)
    """number of training pairs, each of another prompt"""
    held_out: int = Field(50, ge=1)
    """number of further pairs, of other prompts, to measure accuracy on"""


class RewardSettings(RowSettings, TrainedSettings):
    """One reward model (section 3.2.2), initialised from a chat model.

    The kind `general` is a third model, of other comparisons than the two that RLHF optimises: an independent
    judge of its answers (section 3.4.1).

    A step has 512 pairs by default; `warmup_steps` are 3% of all steps, at least 5. Both are the paper's.
    """

    required_inputs: ClassVar[frozenset[str]] = frozenset({"model", "data"})
    optional_inputs: ClassVar[frozenset[str]] = frozenset({"refusals"})
    below: ClassVar[dict[str, str]] = {"evasions.answers": "refusals"}
    trainer_class: ClassVar[str | None] = "trl.RewardConfig"
    trainer_reserved: ClassVar[dict[str, str]] = (
        RESERVED
        | TOKENIZED
        | {"max_length": "use the stage's own `max_length`; longer pairs are skipped and counted"}
    )

    trainer_defaults: ClassVar[dict[str, Any]] = {
        "learning_rate": 1e-5,
        "num_train_epochs": 1,  # more epochs overfit
    } | COSINE_TO_10_PERCENT

    kind: Literal["helpfulness", "safety", "general"]
    """which reward model to train: the quality that annotators compared; `general`: comparisons of any kind,
    for an independent judge"""
    comparisons: list[Source] = Field(min_length=1)
    """sources of the training pairs: two answers to a prompt, one of them chosen"""
    test: list[Source] = []
    """sources of held-out comparisons, whose prompts are not trained on; set either this or `held_out`"""
    held_out: int = Field(0, ge=0)
    """number of `comparisons` to hold out; no prompt is both held out and trained on; set either this
    or `test`"""
    mix: list[Source] = []
    """sources of ordinary comparisons to mix into the training pairs of the safety model (the paper: 90/10);
    their answers are labelled safe unless labelled already"""
    mix_share: float = Field(0.1, gt=0, lt=1)
    """share of the training pairs that are drawn from `mix`"""
    evasions: EvasionSettings | None = None
    """comparisons to add to those of a helpfulness or general model: a reference answer is chosen over an
    evasion, rated significantly_better"""
    margin: Literal["none", "small", "large"] = "small"
    """margins of the ranking loss by rating (table 27)"""
    safety_loss_weight: float = Field(0.0, ge=0)
    """weight of the auxiliary safety loss; the paper gives none"""
    max_length: int = Field(4096, gt=1)
    """maximum length of prompt and answer in tokens; longer pairs are skipped and counted"""
    truncate_prompts: bool = False
    """whether to truncate over-long prompts from the left instead of skipping the pair"""

    @property
    def row_tokens(self) -> int:
        return 2 * self.max_length

    @property
    def step_rows(self) -> int:
        return 512

    @model_validator(mode="after")
    def _fits(self) -> RewardSettings:
        if self.test and self.held_out:
            raise ValueError("held_out: `test` already names held-out comparisons; remove one of the two")
        if not (self.test or self.held_out):
            raise ValueError("held_out: no comparisons to test with; set `held_out` to a number, or `test`")
        if self.kind != "safety" and (self.mix or self.safety_loss_weight):
            raise ValueError(
                "kind: `mix` and `safety_loss_weight` are only for kind 'safety'; remove them or change it"
            )
        if self.kind == "safety" and self.evasions:
            raise ValueError("kind: `evasions` are not for kind 'safety'; remove them or change it")
        return self
