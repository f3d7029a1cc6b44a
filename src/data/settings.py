"""Settings of the stages that read rows (imports no torch)."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field, model_validator

from ..settings import Source, StageSettings


class RowSettings(StageSettings):
    """Settings of a stage that reads rows: documents, dialogues, comparisons, prompts or labelled answers."""

    max_bad_rows: int = Field(0, ge=0)
    """number of bad rows (broken, or not writable in the model's chat format) to skip and list in
    `bad_rows.jsonl` before the stage stops with an error"""

    resumes_with: ClassVar[frozenset[str]] = frozenset({"max_bad_rows"})


class WeightedSource(Source):
    """A source of documents with a weight."""

    weight: float = Field(1.0, gt=0)
    """how often each document of the source occurs per epoch: 2 is twice, 0.5 is another half of the
    documents in each epoch"""


class PromptSource(Source):
    """A source of prompts, whose answers are scored for helpfulness or for safety."""

    is_safety: bool | None = None
    """whether the source's prompts are adversarial, so that answers are scored for safety; null: each row's
    field `is_safety` decides (false if missing)"""


class CorpusSettings(RowSettings):
    """Training and held-out documents of pretraining."""

    documents: list[WeightedSource] = []
    """sources of the training documents"""
    validation: list[Source] = []
    """sources of held-out documents (without such: see `validation_share`)"""
    validation_share: float = Field(0.0, ge=0, lt=1)
    """share of `documents` to hold out, chosen by a hash of each text"""
    deduplicate: bool = True
    """whether to drop all but the first of equal documents; held-out documents come first"""
    shard_tokens: int = Field(100_000_000, gt=0)
    """number of tokens after which open shards are closed; an interrupted stage resumes from there"""

    @model_validator(mode="after")
    def _something_is_held_out(self) -> CorpusSettings:
        if self.documents and bool(self.validation) == bool(self.validation_share):
            raise ValueError("validation: set either `validation` sources or a `validation_share` above 0")
        if not self.documents and (self.validation or self.validation_share):
            raise ValueError(
                "validation: without `documents` the corpus's own held-out documents are used; "
                "remove `validation` and `validation_share`"
            )
        return self
