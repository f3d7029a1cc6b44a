"""Settings of comparisons (imports no torch)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, field_validator

from ..judges.settings import Count, Endpoint, with_placeholders
from ..settings import Settings

PROMPT, FIRST, SECOND = "{prompt}", "{a}", "{b}"
JUDGE_PROMPT = Path(__file__).with_name("judge_prompt.txt").read_text(encoding="utf-8").rstrip()
TIE_MARGIN = 0.05


class PairJudge(Endpoint):
    """A model behind an OpenAI-compatible endpoint compares two answers, once in each order."""

    prompt: str = JUDGE_PROMPT
    """what the judge is asked; `{prompt}`, `{a}` and `{b}` are replaced; the reply must have a line `Verdict:
    A`, `Verdict: B` or `Verdict: tie`; default: `src/comparison/judge_prompt.txt`"""

    @field_validator("prompt")
    @classmethod
    def _has_placeholders(cls, prompt: str) -> str:
        return with_placeholders(prompt, PROMPT, FIRST, SECOND)


class ComparisonSettings(Settings):
    """Win, tie or loss of each version against the version before it and against `sft`."""

    tie_margin: Annotated[float, Field(ge=0, lt=1)] = TIE_MARGIN
    """difference between the scores of two answers (0 to 1, by a reward model) up to which they tie"""
    judge: PairJudge | None = None
    """judge behind an endpoint, besides reward models and ground truth; none if omitted"""
    judge_prompts: Count = 100
    """number of prompts of each kind, evenly spaced, whose first answers that judge compares"""
