"""Settings of the stage `pretrain` (imports no torch)."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field, model_validator

from ..config import Source
from ..model.sizes import ModelSize
from ..training.settings import RESERVED, TrainedSettings


class PretrainSettings(TrainedSettings):
    """Pretraining from random weights (section 2)."""

    required_inputs: ClassVar[frozenset[str]] = frozenset({"tokenizer", "data"})
    trainer_class: ClassVar[str | None] = "transformers.TrainingArguments"
    trainer_reserved: ClassVar[dict[str, str]] = RESERVED

    documents: list[Source] = Field(min_length=1)
    """text to learn from"""
    validation: list[Source] = []
    """held-out documents; see `validation_share` for data sets that have none"""
    validation_share: float = Field(0.0, ge=0, lt=1)
    """share of `documents` to hold out, chosen by a hash of each text"""
    model: ModelSize
    """shape of the model"""
    context_length: int = Field(gt=1)
    """tokens of a training row"""
    cross_document_attention: bool = False
    """whether a token sees the documents before its own in a row (plain concatenation), or only its own"""
    shard_tokens: int = Field(100_000_000, gt=0)
    """tokens of a shard file"""

    @model_validator(mode="after")
    def _fits(self) -> PretrainSettings:
        if self.context_length > self.model.max_position_embeddings:
            raise ValueError(
                f"context_length {self.context_length} is above the model's max_position_embeddings "
                f"{self.model.max_position_embeddings}"
            )
        if bool(self.validation) == bool(self.validation_share):
            raise ValueError("validation: give either `validation` sources or a `validation_share` above 0")
        return self
