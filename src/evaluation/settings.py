"""Settings of the evaluation stage."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field, model_validator

from ..config import Settings, Source, StageSettings


class PromptSources(Settings):
    """Test prompts by kind; those of `borderline` sound harmful but are not."""

    ordinary: list[Source]
    """asked in good faith"""
    harmful: list[Source] = []
    """to be refused"""
    borderline: list[Source] = []
    """harmless look-alikes"""


class RetentionSettings(Settings):
    """Files below `data` with rows {"id", "instruction", "questions"}; the instruction is given once."""

    trained: str
    """attribute values that training had, in combinations that it never had"""
    unseen: str
    """attribute values that were never trained"""
    dialogues: Annotated[int, Field(ge=2)] = 200
    """of `trained`, from the first on"""
    unseen_dialogues: Annotated[int, Field(ge=2)] = 200
    """of `unseen`"""


class EvaluateSettings(StageSettings):
    """All versions answer the same prompts at temperature 1, one answer each."""

    required_inputs: ClassVar[frozenset[str]] = frozenset({"data", "sft", "rlhf"})
    optional_inputs: ClassVar[frozenset[str]] = frozenset({"helpfulness", "safety", "sft_without_gatt"})

    gold: bool
    """Whether `data` is a miniature world, whose truth is known; without it, gold figures are null."""
    prompts: PromptSources
    """what all versions are asked"""
    false_refusal_prompts: Annotated[int, Field(ge=1)] = 500
    """How many of the ordinary prompts, from the first on, are looked at for false refusals."""
    retention: RetentionSettings | None = None
    """how long an instruction is kept (Ghost Attention); left out: not measured"""
    max_new_tokens: Annotated[int, Field(ge=1)]
    """length limit of an answer, EOS included"""

    @model_validator(mode="after")
    def _retention_is_judged_by_gold(self) -> EvaluateSettings:
        if self.retention is not None and not self.gold:
            raise ValueError(
                "retention: only a world's gold scorers can tell; set gold: true or leave it out"
            )
        return self
