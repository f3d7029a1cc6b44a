"""Settings of the stage `gatt` (imports no torch)."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field, model_validator

from ..data.instructions import KINDS, Kind
from ..data.settings import RowSettings
from ..settings import Precision, Source

Count = Annotated[int, Field(ge=1)]


class GattSettings(RowSettings):
    """Ghost Attention's dialogues sampled from a chat model (section 3.3, steps 1 and 2)."""

    required_inputs: ClassVar[frozenset[str]] = frozenset({"model", "data"})
    optional_inputs: ClassVar[frozenset[str]] = frozenset({"helpfulness", "safety"})
    resumable: ClassVar[bool] = True
    no_effect: ClassVar[frozenset[str]] = frozenset({"sampling_batch_size"})

    round: str | None = None
    """in a block of rounds the round's name: each round then has its own draws"""
    prompts: Annotated[list[Source], Field(min_length=1)]
    """whose last messages are what the user says, one after the other"""
    instructions: Annotated[list[Kind], Field(min_length=1)] = list(KINDS)
    """kinds of instructions, each as often"""
    dialogues: Count
    """to begin; one ends before the first turn at which no answer keeps the instruction"""
    min_turns: Annotated[int, Field(ge=2)] = 2
    """shorter dialogues are left out and counted"""
    max_turns: Annotated[int, Field(ge=2)] = 6
    """the last turn of a dialogue is drawn between these"""
    num_generations: Count = 4
    """K answers; of those that keep the instruction the most helpful safe one stays by the reward models,
    or the likeliest one where none are given"""
    temperature: Annotated[float, Field(gt=0)] = 1.0
    """of the sampled answers"""
    max_new_tokens: Count
    """length limit of an answer, EOS included"""
    short_share: Annotated[float, Field(ge=0, le=1)] = 0.5
    """share of the dialogues that state the instruction in its short form"""
    test_dialogues: Annotated[int, Field(ge=0)] = 0
    """instructions with questions that no dialogue has, for the retention in stage `evaluate`"""
    test_turns: Count = 20
    """questions of each of them"""
    safety_threshold: Annotated[float, Field(ge=0, le=1)] = 0.15
    """an answer whose safety score is lower is unsafe and does not stay, where reward models are given"""
    dtype: Precision = "float32"
    """precision that answers are sampled and scored in"""
    sampling_batch_size: Count = 512
    """answers sampled side by side"""

    @property
    def draws(self) -> str:
        """In the name of every draw."""
        return f"{self.seed}/gatt" if self.round is None else f"{self.seed}/{self.round}/gatt"

    @model_validator(mode="after")
    def _turns_fit(self) -> GattSettings:
        if self.min_turns > self.max_turns:
            raise ValueError(f"min_turns {self.min_turns} is above max_turns {self.max_turns}")
        return self
