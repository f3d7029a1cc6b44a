"""Which distilled answers are kept: those that the safety model scores above the original (section 4.2.4)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..jsonl import Row
from .prompts import DistilledPrompt, Kind

PREFERRED: tuple[Kind, ...] = ("tailored", "generic")


@dataclass(frozen=True)
class Answer:
    """A sampled answer; `score`: its safety score in (0, 1) as an answer to the prompt without preprompt."""

    text: str
    usable: bool
    score: float


@dataclass(frozen=True)
class Outcome:
    """A prompt with its answers by kind; "tailored" is missing for a prompt without a tailored preprompt."""

    prompt: DistilledPrompt
    answers: Mapping[Kind, Answer]

    @property
    def distilled(self) -> Kind | None:
        """Kind of the distilled answer: tailored, or else generic, if it is usable; None if neither is.

        The paper's preprompt depends on the prompt's risk category alone, so scores do not decide between
        the two.
        """
        return next((kind for kind in PREFERRED if kind in self.answers and self.answers[kind].usable), None)

    @property
    def kept(self) -> bool:
        """Whether the safety score of the distilled answer is higher than that of the original answer."""
        kind = self.distilled
        return kind is not None and self.answers[kind].score > self.answers["original"].score

    def ungated(self) -> Answer:
        """The distilled answer, or the original one if no distilled answer is usable."""
        return self.answers[self.distilled or "original"]

    def gated(self) -> Answer:
        """The distilled answer if it is kept, or else the original one."""
        return self.ungated() if self.kept else self.answers["original"]

    def dialogue(self) -> Row:
        """The prompt without preprompt and the distilled answer, as a row of format `messages`."""
        prompt = self.prompt.prompt
        answer = {"role": "assistant", "content": self.ungated().text}
        return {**prompt.row(), "messages": [*prompt.messages, answer]}

    def row(self) -> Row:
        """All answers and scores, as a row of `scores.jsonl`."""
        prompt = self.prompt.prompt
        return {
            **prompt.row(),
            "context": prompt.context,
            "preprompts": dict(self.prompt.preprompts),
            "answers": {kind: answer.text for kind, answer in self.answers.items()},
            "scores": {kind: answer.score for kind, answer in self.answers.items()},
            "distilled": self.distilled,
            "kept": self.kept,
        }
