"""What the YAMLs of rejection sampling and PPO have in common (imports no torch)."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from ..data.settings import PromptSource, RowSettings
from ..settings import Precision

Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]


class RlhfSettings(RowSettings):
    """Prompts, answers sampled for them, and how these are scored."""

    round: str = "v1"
    """part of every draw's name, so that rounds draw differently; in a block of rounds the round's name"""
    prompts: Annotated[list[PromptSource], Field(min_length=1)]
    """sources of the prompts to sample answers for"""
    max_prompt_length: Count | None = None
    """tokens; longer prompts are left out and counted, as are those that leave an answer no room"""
    max_new_tokens: Count
    """length limit of an answer, EOS included"""
    safety_threshold: Share = 0.15
    """an answer whose safety score is lower is unsafe, and scored for safety alone"""
    sampling_batch_size: Count = 512
    """answers sampled side by side"""
    dtype: Precision = "float32"
    """precision of sampling, scoring and PPO's forward passes; trained weights stay float32"""

    publishes_language_model: ClassVar[bool] = True
    resumable: ClassVar[bool] = True
    no_effect: ClassVar[frozenset[str]] = frozenset({"sampling_batch_size"})
