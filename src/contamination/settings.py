"""Settings of the stage `contamination` (imports no torch)."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field, model_validator

from ..data.settings import RowSettings
from ..settings import Source


class SampleSource(Source):
    """A source of evaluation samples, all of one benchmark or a part of it."""

    benchmark: Annotated[str, Field(min_length=1)]
    """name of the benchmark in the figures; sources with the same name are one benchmark"""


class ContaminationSettings(RowSettings):
    """Search for evaluation samples in the text that a model was trained on (section A.6)."""

    required_inputs: ClassVar[frozenset[str]] = frozenset({"tokenizer"})
    optional_inputs: ClassVar[frozenset[str]] = frozenset({"corpus", "data"})
    listed_inputs: ClassVar[frozenset[str]] = frozenset({"benchmarks"})
    resumable: ClassVar[bool] = True
    no_effect: ClassVar[frozenset[str]] = frozenset({"threads"})

    samples: list[SampleSource] = []
    """sources of evaluation samples: rows of format `scored`, or prompts (their messages without the answer),
    or documents; further samples are those of the input `benchmarks`"""
    rows: list[Source] = []
    """sources of training rows to search besides the input `corpus`: dialogues, comparisons, prompts or
    documents, with their answers"""
    threads: Annotated[int, Field(ge=1)] | None = None
    """number of threads that search; default: one per core"""

    def inputs_taken(self) -> tuple[frozenset[str], frozenset[str]]:
        """The input `data` is required if there are sources."""
        needed = {"data"} if self.samples or self.rows else set[str]()
        return self.required_inputs | needed, self.optional_inputs

    @model_validator(mode="after")
    def _different_names(self) -> ContaminationSettings:
        formats: dict[str, str] = {}
        for source in self.samples:
            first = formats.setdefault(source.benchmark, source.format)
            if (first == "scored") != (source.format == "scored"):
                raise ValueError(
                    f"samples: benchmark {source.benchmark!r} has sources of format 'scored' and others; "
                    "expected scores of all its samples or of none"
                )
        return self
