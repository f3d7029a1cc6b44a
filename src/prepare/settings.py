"""Settings of the stage `prepare` (imports no torch)."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from ..data.settings import CorpusSettings, WeightedSource
from ..settings import StageSettings


class PrepareSettings(CorpusSettings, StageSettings):
    """Documents of a corpus that several pretraining runs can share."""

    required_inputs: ClassVar[frozenset[str]] = frozenset({"tokenizer", "data"})
    resumable: ClassVar[bool] = True
    no_effect: ClassVar[frozenset[str]] = frozenset({"shard_tokens"})

    documents: list[WeightedSource] = Field(min_length=1)
    """sources of the training documents"""
