"""Settings of the evaluation stage."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from typing import Annotated, ClassVar

from pydantic import Field, field_validator, model_validator

from ..comparison.settings import ComparisonSettings
from ..data.settings import PromptSource, RowSettings
from ..errors import install_command
from ..judges.settings import OF_THE_ENDPOINT
from ..measures import AVERAGED_TURNS, JUDGE, RETENTION_TURNS
from ..sampling.settings import SamplingSettings
from ..settings import Precision, Settings, Source


class PromptSources(Settings):
    """Sources of the test prompts by kind."""

    ordinary: list[PromptSource]
    """harmless prompts, to be answered helpfully"""
    harmful: list[PromptSource] = []
    """prompts with harmful requests, to be refused"""
    borderline: list[PromptSource] = []
    """harmless prompts that sound harmful, to be answered"""

    @field_validator("ordinary", "harmful", "borderline")
    @classmethod
    def _kind_comes_from_the_section(cls, sources: list[PromptSource]) -> list[PromptSource]:
        if any(source.is_safety is not None for source in sources):
            raise ValueError("is_safety has no effect here: `ordinary` or `harmful` decides; remove it")
        return sources


class DecodingSettings(Settings):
    """Temperature and top-p of one set of answers."""

    temperature: Annotated[float, Field(ge=0)] = 1.0
    """sampling temperature; 0 is greedy"""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """total probability of the likeliest tokens that are sampled (nucleus sampling); 1: all tokens"""

    @property
    def name(self) -> str:
        """The decoding's name in `evaluation.json`."""
        return f"temperature {self.temperature:g}, top-p {self.top_p:g}"

    @property
    def folder(self) -> str:
        """Name of a folder for its answers."""
        return self.name.replace(", ", "-").replace(" ", "-")

    @property
    def is_plain(self) -> bool:
        """Whether answers are samples of the model's own distribution."""
        return self.temperature == self.top_p == 1


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
    versions: bool = True
    """whether every version is tested on `trained`, and not only `sft`"""
    version_turns: Annotated[int, Field(ge=1, le=RETENTION_TURNS[-1])] | None = None
    """number of turns per dialogue for versions; default: `turns`, at most 10"""
    version_dialogues: Annotated[int, Field(ge=2)] | None = None
    """number of dialogues for versions, the first rows of `trained`; default: `dialogues`"""

    @property
    def turns_for_versions(self) -> int:
        return self.version_turns or min(self.turns, AVERAGED_TURNS)

    @property
    def dialogues_for_versions(self) -> int:
        return self.version_dialogues or self.dialogues


class DiversitySettings(Settings):
    """Self-BLEU of the answers of every version by temperature, see docs/comparison.md.

    Needs the extra `eval`. The paper has 10 prompts of each kind: `limit: 10` takes a source's first ones.
    """

    factual: Annotated[list[PromptSource], Field(min_length=1)]
    """sources of prompts with one right answer"""
    creative: Annotated[list[PromptSource], Field(min_length=1)]
    """sources of prompts with many good answers"""
    temperatures: Annotated[list[Annotated[float, Field(gt=0)]], Field(min_length=1)] = [
        number / 10 for number in range(1, 16)
    ]
    """sampling temperatures; default: 0.1 to 1.5, as in the paper"""
    num_generations: Annotated[int, Field(ge=2)] = 25
    """number of answers per prompt and temperature"""

    @model_validator(mode="after")
    def _package_is_installed(self) -> DiversitySettings:
        """Before a pipeline starts, not in its last stage."""
        if find_spec("sacrebleu") is None:
            raise ValueError(f"needs the package sacrebleu; {install_command('eval')}")
        return self

    @field_validator("temperatures")
    @classmethod
    def _different(cls, temperatures: list[float]) -> list[float]:
        if len({f"{temperature:g}" for temperature in temperatures}) < len(temperatures):
            raise ValueError("two temperatures are the same; remove one")
        return temperatures


class EvaluateSettings(RowSettings, SamplingSettings):
    """All versions answer the same test prompts with the same random draws."""

    required_inputs: ClassVar[frozenset[str]] = frozenset({"data", "sft"})
    optional_inputs: ClassVar[frozenset[str]] = frozenset(
        {"helpfulness", "safety", JUDGE, "refusal_classifier", "sft_without_gatt", "gatt"}
    )
    listed_inputs: ClassVar[frozenset[str]] = frozenset({"versions", "ablations"})

    resumable: ClassVar[bool] = True
    below: ClassVar[dict[str, str]] = {"retention": "gatt"}
    no_effect: ClassVar[frozenset[str]] = frozenset(f"comparison.judge.{name}" for name in OF_THE_ENDPOINT)
    resumes_with: ClassVar[frozenset[str]] = frozenset({"comparison.judge.retries"})

    gold: bool
    """whether `data` is a miniature world with known ground truth; if false, gold helpfulness, violation rate
    and invalid rate are null"""
    prompts: PromptSources
    """test prompts that every version answers"""
    decodings: Annotated[list[DecodingSettings], Field(min_length=1)] = [DecodingSettings()]
    """temperature and top-p of the answers; every version answers all prompts in each of them, and the
    headline figures are those of the first; default: temperature 1 without top-p"""
    num_generations: Annotated[int, Field(ge=1)] = 1
    """number of answers per prompt and decoding"""
    false_refusal_prompts: Annotated[int, Field(ge=1)] = 500
    """number of ordinary prompts, the first ones, on which false refusals are counted"""
    retention: RetentionSettings | None = None
    """test of instruction following over many turns (Ghost Attention); not measured if omitted"""
    comparison: ComparisonSettings = ComparisonSettings()
    """win, tie or loss of each version against the version before it and against `sft`"""
    diversity: DiversitySettings | None = None
    """test of the diversity of answers by temperature; not measured if omitted"""
    max_new_tokens: Annotated[int, Field(ge=1)]
    """maximum number of tokens of an answer, EOS included"""
    dtype: Precision = "float32"
    """precision of the weights for sampling and scoring"""

    @field_validator("decodings")
    @classmethod
    def _different(cls, decodings: list[DecodingSettings]) -> list[DecodingSettings]:
        names = [decoding.name for decoding in decodings]
        if len(set(names)) < len(names):
            raise ValueError(f"two entries are the same: {'; '.join(names)}; remove one")
        return decodings

    def inputs_taken(self) -> tuple[frozenset[str], frozenset[str]]:
        """As in the base class; only `retention` samples from the model without Ghost Attention."""
        required, optional = super().inputs_taken()
        return required, optional if self.retention else optional - {"sft_without_gatt"}

    def all_sources(self) -> Iterator[tuple[str, Source]]:
        yield from super().all_sources()
        if self.gold:
            yield "gold", Source(path="truth.json", format="truth")
        if self.retention is not None:
            for path in filter(None, (self.retention.trained, self.retention.unseen)):
                yield "retention", Source(path=path, format="instructed")
