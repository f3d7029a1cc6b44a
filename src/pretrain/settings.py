"""Settings of the stage `pretrain` (imports no torch)."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field, model_validator

from ..data.settings import CorpusSettings
from ..model.sizes import ModelSize
from ..training.settings import COSINE_TO_10_PERCENT, RESERVED, PackedSettings

BATCH_TOKENS = 2**22  # section 2.2: 4M


class PretrainSettings(CorpusSettings, PackedSettings):
    """Pretraining (section 2) of a new model or the input `model`, on `documents` or the input `corpus`.

    The paper's global batch is 4M tokens.
    """

    optional_inputs: ClassVar[frozenset[str]] = frozenset({"tokenizer", "model", "data", "corpus"})
    trainer_class: ClassVar[str | None] = "transformers.TrainingArguments"
    trainer_reserved: ClassVar[dict[str, str]] = RESERVED
    publishes_language_model: ClassVar[bool] = True
    no_effect: ClassVar[frozenset[str]] = frozenset({"shard_tokens", "eval_steps"})
    trainer_defaults: ClassVar[dict[str, Any]] = {
        "learning_rate": 3e-4,
        "warmup_steps": 2000,
        "num_train_epochs": 1,
    } | COSINE_TO_10_PERCENT

    model: ModelSize | None = None
    """shape of a new model with random weights; if not set, the input `model` is trained further"""
    context_length: int = Field(4096, gt=1)
    """number of tokens in a training row"""
    cross_document_attention: bool = False
    """whether tokens see earlier documents in their row (plain concatenation) or only their own document"""

    eval_steps: int | None = Field(None, gt=0)
    """number of steps between evaluations on the held-out text; the saved model is always evaluated"""
    loss_spike: float | None = Field(3.0, gt=1)
    """multiple of the median of the last 100 losses above which a loss is a spike (null: never); after a
    spike, NaN or infinite loss, training rolls back to the newest checkpoint and skips the batches since, at
    most three times"""

    @model_validator(mode="after")
    def _fits(self) -> PretrainSettings:
        if self.model is not None and self.context_length > self.model.max_position_embeddings:
            raise ValueError(
                f"context_length {self.context_length} is above the model's max_position_embeddings "
                f"{self.model.max_position_embeddings}"
            )
        if self.model is not None and self.lora is not None:
            raise ValueError(
                "lora: a new model has only random weights; use the input `model` instead of `model:`"
            )
        if self.attn_implementation == "packed" and self.cross_document_attention:
            raise ValueError(
                "attn_implementation: packed keeps documents apart; use sdpa with cross_document_attention"
            )
        return self

    @property
    def row_tokens(self) -> int:
        return self.context_length

    @property
    def step_rows(self) -> int:
        return max(1, BATCH_TOKENS // self.context_length)

    def inputs_taken(self) -> tuple[frozenset[str], frozenset[str]]:
        text_input = "data" if self.documents else "corpus"
        return frozenset({text_input, "model" if self.model is None else "tokenizer"}), frozenset()
