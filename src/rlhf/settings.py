"""Settings that the stages `rejection` and `ppo` have in common (imports no torch)."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from ..data.settings import PromptSource, RowSettings
from ..sampling.settings import SamplingSettings
from ..settings import Precision, RankSettings

Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
FrozenModels = Literal["whole", "sharded", "offloaded"]
Share = Annotated[float, Field(ge=0, le=1)]


class RlhfSettings(RowSettings, SamplingSettings, RankSettings):
    """Settings of sampling answers to prompts and scoring them."""

    round: str = "v1"
    """name of the round, part of every random seed so that rounds sample differently; set automatically in a
    block of rounds"""
    prompts: Annotated[list[PromptSource], Field(min_length=1)]
    """sources of the prompts to sample answers for"""
    max_prompt_length: Count | None = None
    """maximum length of a prompt in tokens; longer prompts are skipped and counted, as are prompts that leave
    no room for an answer and an EOS in the smallest context of the models"""
    max_new_tokens: Count
    """maximum length of an answer in tokens, EOS included"""
    safety_threshold: Share = 0.15
    """safety score below which an answer counts as unsafe; its reward is then its safety score"""
    dtype: Precision = "float32"
    """precision of sampling, scoring and PPO's forward passes; trained weights are float32. In PPO with
    `deepspeed` only that of scoring: the file determines the others"""

    publishes_language_model: ClassVar[bool] = True
    resumable: ClassVar[bool] = True
    frozen_models: FrozenModels = "whole"
    """how models that are not trained (reward models, PPO's reference) are held: `whole` on each GPU;
    `sharded`: partitioned over the ranks by ZeRO-3, needs `deepspeed`; `offloaded`: in the host's memory
    while they are idle. With `lora` they are adapters, and `sharded` applies to the base model"""

    resumes_with: ClassVar[frozenset[str]] = frozenset({"frozen_models"})

    @model_validator(mode="after")
    def _can_be_sharded(self) -> RlhfSettings:
        if self.frozen_models == "sharded" and self.deepspeed is None:
            raise ValueError("frozen_models: sharded partitions models over ranks; set `deepspeed`, too")
        return self
