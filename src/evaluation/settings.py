"""Settings of the evaluation stage."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, ClassVar

from pydantic import Field

from ..data.settings import RowSettings
from ..measures import RETENTION_TURNS
from ..settings import Precision, Settings, Source


class PromptSources(Settings):
    """Test prompts by kind; those of `borderline` sound harmful but are not."""

    ordinary: list[Source]
    """asked in good faith"""
    harmful: list[Source] = []
    """to be refused"""
    borderline: list[Source] = []
    """harmless look-alikes"""


class RetentionSettings(Settings):
    """Files with rows {"id", "instruction", "questions"}, below the input `gatt`, or else `data`.

    The instruction is given once. Without a gold scorer rows say in `check` what to look for, as do those of
    the stage `gatt`.
    """

    trained: str
    """in a miniature world: attribute values that training had, in combinations that it never had"""
    unseen: str | None = None
    """attribute values that were never trained"""
    turns: Annotated[int, Field(ge=1, le=RETENTION_TURNS[-1])] = RETENTION_TURNS[-1]
    """of a dialogue; instructions are looked for at turns 1, 2, 4, 6, 10 and 20"""
    dialogues: Annotated[int, Field(ge=2)] = 200
    """of `trained`, from the first on"""
    unseen_dialogues: Annotated[int, Field(ge=2)] = 200
    """of `unseen`"""


class EvaluateSettings(RowSettings):
    """All versions answer the same prompts at temperature 1, one answer each."""

    required_inputs: ClassVar[frozenset[str]] = frozenset({"data", "sft"})
    optional_inputs: ClassVar[frozenset[str]] = frozenset(
        {"helpfulness", "safety", "sft_without_gatt", "gatt"}
    )
    listed_inputs: ClassVar[frozenset[str]] = frozenset({"versions"})

    resumable: ClassVar[bool] = True
    no_effect: ClassVar[frozenset[str]] = frozenset({"sampling_batch_size"})
    below: ClassVar[dict[str, str]] = {"retention": "gatt"}

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
    sampling_batch_size: Annotated[int, Field(ge=1)] = 512
    """answers sampled side by side"""
    dtype: Precision = "float32"
    """precision that answers are sampled and scored in"""

    def all_sources(self) -> Iterator[tuple[str, Source]]:
        yield from super().all_sources()
        if self.gold:
            yield "gold", Source(path="truth.json", format="truth")
        if self.retention is not None:
            for path in filter(None, (self.retention.trained, self.retention.unseen)):
                yield "retention", Source(path=path, format="instructed")
