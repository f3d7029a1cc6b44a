"""Settings of the stages that read rows (imports no torch)."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field, model_validator

from ..settings import Source, StageSettings


class RowSettings(StageSettings):
    """A stage that reads rows: documents, dialogues, comparisons or prompts."""

    max_bad_rows: int = Field(0, ge=0)
    """number of bad rows (broken, or not to be written in the model's chat format) that are left out and
    listed in `bad_rows.jsonl`; one more stops the stage"""

    resumes_with: ClassVar[frozenset[str]] = frozenset({"max_bad_rows"})


class WeightedSource(Source):
    """Documents that a pass over the corpus takes `weight` times."""

    weight: float = Field(1.0, gt=0)
    """how often a pass takes each of its documents: 2 is twice, 0.5 another half in each pass"""


class PromptSource(Source):
    """Prompts to sample answers for, scored for helpfulness or for safety."""

    is_safety: bool | None = None
    """whether its prompts are adversarial ones, which are scored for safety; null: as each row's own field
    `is_safety` says, and no if it has none"""


class CorpusSettings(RowSettings):
    """Which documents a model is pretrained on, and which are held out."""

    documents: list[WeightedSource] = []
    """text to learn from"""
    validation: list[Source] = []
    """held-out documents; see `validation_share` for data sets that have none"""
    validation_share: float = Field(0.0, ge=0, lt=1)
    """share of `documents` to hold out, chosen by a hash of each text"""
    deduplicate: bool = True
    """whether only the first of equal documents stays, held-out ones before all others"""
    shard_tokens: int = Field(100_000_000, gt=0)
    """tokens after which the open shard files are closed; a killed stage goes on from there"""

    @model_validator(mode="after")
    def _something_is_held_out(self) -> CorpusSettings:
        if self.documents and bool(self.validation) == bool(self.validation_share):
            raise ValueError("validation: give either `validation` sources or a `validation_share` above 0")
        if not self.documents and (self.validation or self.validation_share):
            raise ValueError("validation: without `documents` nothing is held out; the corpus has its own")
        return self
