"""Settings of the evaluation stage."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, ClassVar

from pydantic import Field

from ..data.settings import RowSettings
from ..measures import RETENTION_TURNS
from ..settings import Precision, Settings, Source


class PromptSources(Settings):
    """Sources of the test prompts by kind."""

    ordinary: list[Source]
    """harmless prompts, to be answered helpfully"""
    harmful: list[Source] = []
    """prompts with harmful requests, to be refused"""
    borderline: list[Source] = []
    """harmless prompts that sound harmful, to be answered"""


class RetentionSettings(Settings):
    """Test of instruction following: files with rows {"id", "instruction", "questions"}.

    Paths are relative to the input `gatt` if the stage has it, else to `data`. The instruction is given once,
    in the system message of the first turn. With `gold: false` each row needs a `check`, which code applies
    to the answers, as in the test file of the stage `gatt`.
    """

    trained: str
    """path of the test file; in a miniature world with attribute values that occur in training, in new
    combinations"""
    unseen: str | None = None
    """path of a test file with attribute values that do not occur in training"""
    turns: Annotated[int, Field(ge=1, le=RETENTION_TURNS[-1])] = RETENTION_TURNS[-1]
    """number of turns per dialogue; instruction following is measured at turns 1, 2, 4, 6, 10 and 20"""
    dialogues: Annotated[int, Field(ge=2)] = 200
    """number of dialogues to test from `trained`: its first rows"""
    unseen_dialogues: Annotated[int, Field(ge=2)] = 200
    """number of dialogues to test from `unseen`: its first rows"""


class EvaluateSettings(RowSettings):
    """All versions answer the same test prompts at temperature 1, with one answer per prompt."""

    required_inputs: ClassVar[frozenset[str]] = frozenset({"data", "sft"})
    optional_inputs: ClassVar[frozenset[str]] = frozenset(
        {"helpfulness", "safety", "sft_without_gatt", "gatt"}
    )
    listed_inputs: ClassVar[frozenset[str]] = frozenset({"versions"})

    resumable: ClassVar[bool] = True
    no_effect: ClassVar[frozenset[str]] = frozenset({"sampling_batch_size"})
    below: ClassVar[dict[str, str]] = {"retention": "gatt"}

    gold: bool
    """whether `data` is a miniature world with known ground truth; if false, gold helpfulness, violation rate
    and invalid rate are null"""
    prompts: PromptSources
    """test prompts that every version answers"""
    false_refusal_prompts: Annotated[int, Field(ge=1)] = 500
    """number of ordinary prompts, the first ones, on which false refusals are counted"""
    retention: RetentionSettings | None = None
    """test of instruction following over many turns (Ghost Attention); not measured if omitted"""
    max_new_tokens: Annotated[int, Field(ge=1)]
    """maximum number of tokens of an answer, EOS included"""
    sampling_batch_size: Annotated[int, Field(ge=1)] = 512
    """number of answers that are sampled at the same time"""
    dtype: Precision = "float32"
    """precision of the weights for sampling and scoring"""

    def all_sources(self) -> Iterator[tuple[str, Source]]:
        yield from super().all_sources()
        if self.gold:
            yield "gold", Source(path="truth.json", format="truth")
        if self.retention is not None:
            for path in filter(None, (self.retention.trained, self.retention.unseen)):
                yield "retention", Source(path=path, format="instructed")
