"""Settings of the stages that read rows (imports no torch)."""

from __future__ import annotations

from typing import Annotated, ClassVar

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
    instruction_share: float = Field(0.0, ge=0, le=1)
    """share of the source's prompts without a system message that get one: an instruction such as "Always
    answer in French.", drawn with the stage's seed"""
    multi_turn_share: float = Field(0.0, ge=0, le=1)
    """share of the source's plain prompts that get one or two earlier turns: other prompts of the source with
    their reference answers (formats of dialogues and comparisons), drawn with the stage's seed"""


class DialogueSettings(RowSettings):
    """Dialogues to fine-tune on."""

    optional_inputs: ClassVar[frozenset[str]] = frozenset({"gatt", "distillation"})
    below: ClassVar[dict[str, str]] = {"ghost_attention": "gatt", "distillation": "distillation"}

    dialogues: Annotated[list[Source], Field(min_length=1)]
    """sources of demonstrations: dialogues in which all answers are trained, also in every round of rejection
    sampling"""
    ghost_attention: list[Source] = []
    """sources of Ghost Attention dialogues (section 3.3), in the input `gatt` if there is one, otherwise in
    `data`: only the last answer is trained, and the `instruction` of a dialogue is kept in its first turn
    only"""
    distillation: list[Source] = []
    """sources of the dialogues of context distillation (section 4.2.4), in the input `distillation` if there
    is one, otherwise in `data`: only the last answer is trained"""


class CorpusSettings(RowSettings):
    """Training and held-out documents of pretraining."""

    documents: list[WeightedSource] = []
    """sources of the training documents"""
    validation: list[Source] = []
    """sources of held-out documents; with `documents` set either this or `validation_share`"""
    validation_share: float = Field(0.0, ge=0, lt=1)
    """share of `documents` to hold out, chosen by a hash of each text; with `documents` set either this above
    0 or `validation`"""
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
