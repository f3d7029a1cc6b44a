"""Settings of the stage `gatt` (imports no torch)."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field, model_validator

from ..data.instructions import KINDS, Kind
from ..data.settings import RowSettings
from ..sampling.settings import SamplingSettings
from ..settings import Precision, Source

Count = Annotated[int, Field(ge=1)]


class GattSettings(RowSettings, SamplingSettings):
    """Ghost Attention: samples dialogues with instructions from a chat model (section 3.3)."""

    required_inputs: ClassVar[frozenset[str]] = frozenset({"model", "data"})
    optional_inputs: ClassVar[frozenset[str]] = frozenset({"helpfulness", "safety"})
    resumable: ClassVar[bool] = True

    round: str | None = None
    """name of the round, part of every random seed so that rounds sample differently; set automatically in a
    block of rounds"""
    prompts: Annotated[list[Source], Field(min_length=1)]
    """prompt sources; each prompt's last user message becomes one user turn"""
    instructions: Annotated[list[Kind], Field(min_length=1)] = list(KINDS)
    """kinds of instructions, drawn with equal probability"""
    dialogues: Count
    """number of dialogues to start; a dialogue ends before the first turn without an answer that follows the
    instruction"""
    min_turns: Annotated[int, Field(ge=2)] = 2
    """minimum number of turns; shorter dialogues are dropped and counted"""
    max_turns: Annotated[int, Field(ge=2)] = 6
    """maximum number of turns; each dialogue's number is drawn between `min_turns` and `max_turns`"""
    num_generations: Count = 4
    """K, the number of answers sampled per turn; of those that follow the instruction, the most helpful safe
    one by the reward models is selected, or without reward models the most probable one"""
    temperature: Annotated[float, Field(gt=0)] = 1.0
    """sampling temperature"""
    max_new_tokens: Count
    """maximum length of an answer in tokens, EOS included"""
    short_share: Annotated[float, Field(ge=0, le=1)] = 0.5
    """share of the training dialogues that contain the short form of the instruction"""
    test_dialogues: Annotated[int, Field(ge=0)] = 0
    """number of test dialogues, for the retention that stage `evaluate` measures; an instruction, and user
    messages that are in no training dialogue"""
    test_turns: Count = 20
    """number of user messages per test dialogue"""
    safety_threshold: Annotated[float, Field(ge=0, le=1)] = 0.15
    """safety score below which an answer is unsafe and never selected (with reward models)"""
    dtype: Precision = "float32"
    """precision of sampling and scoring"""

    @property
    def full_seed(self) -> str:
        """Seed of every random draw: the setting `seed`, the round and the stage."""
        return f"{self.seed}/gatt" if self.round is None else f"{self.seed}/{self.round}/gatt"

    @model_validator(mode="after")
    def _turns_fit(self) -> GattSettings:
        if self.min_turns > self.max_turns:
            raise ValueError(f"min_turns {self.min_turns} is above max_turns {self.max_turns}")
        return self
