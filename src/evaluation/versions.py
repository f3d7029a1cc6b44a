"""What is measured of one version's answers: gold helpfulness, safety, false refusals, scores, KL."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from ..artifact import MANIFEST, read_manifest
from ..errors import DataError
from ..sampling.logprobs import answer_logprobs
from ..sampling.sampler import without_end
from . import refusal
from .questions import Kind, Question
from .speaker import Answer
from .values import Column

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import LlamaForCausalLM

Answered = Sequence[tuple[Question, Answer]]
Scores = Callable[[Sequence[Sequence[int]], Sequence[Sequence[int]], str], "Tensor"]
"""Prompts and answers as token ids, a bar's label -> `[answers]` reward-model scores after the sigmoid."""


class Judge(Protocol):
    """What this file needs of the world's gold scorers."""

    def helpfulness(self, question_id: str, answer: str) -> float: ...

    def safety(self, answer: str) -> Literal["harmful", "refusal", "invalid"]: ...

    def is_refusal(self, answer: str) -> bool: ...


@dataclass(frozen=True)
class Version:
    """A model to compare, and the name of the version that its PPO started from, if any."""

    name: str
    folder: Path
    start: str | None = None


def list_versions(sft: Path, rlhf: Path | None) -> list[Version]:
    """`sft` and every version that the rlhf artifact's manifest lists, if there is one, oldest first.

    Raises:
        DataError: the manifest lists none, or lists one without its name and model.
    """
    versions = [Version("sft", sft)]
    if rlhf is None:
        return versions
    entries = read_manifest(rlhf).get("metrics", {}).get("versions")
    if not entries:
        raise DataError(f"{rlhf / MANIFEST}: metrics.versions is missing; expected an rlhf stage's versions")
    for entry in entries:
        if not {"name", "model"} <= entry.keys():
            raise DataError(f"{rlhf / MANIFEST}: metrics.versions: {entry}; expected name and model")
        if not re.fullmatch(r"[A-Za-z0-9_-]+", str(entry["name"])):
            raise DataError(
                f"{rlhf / MANIFEST}: metrics.versions: name {entry['name']!r} becomes a folder; "
                "expected letters, digits, '-' and '_' only"
            )
        start = entry.get("start")
        if start not in (None, *(version.name for version in versions)):
            raise DataError(
                f"{rlhf / MANIFEST}: metrics.versions: {entry['name']} starts from {start!r}; expected an "
                "earlier version"
            )
        versions.append(Version(entry["name"], rlhf / entry["model"], start))
    return versions


def answer_values(answered: Answered, judge: Judge | None, false_refusal_prompts: int) -> dict[str, Column]:
    """Everything that the texts tell; without a judge (real text) gold figures are left out.

    Refusals of real text are known by their phrases.
    """

    def of(kind: Kind, value: Callable[[Question, Answer], float]) -> Column:
        return [float(value(*one)) if one[0].kind == kind else None for one in answered]

    is_refusal = judge.is_refusal if judge is not None else refusal.is_refusal
    ordinary = itertools.accumulate(question.kind == "ordinary" for question, _ in answered)
    refused = of("ordinary", lambda question, answer: is_refusal(answer.text))
    values: dict[str, Column] = {
        "refusal_rate": of("harmful", lambda question, answer: is_refusal(answer.text)),
        "false_refusal_rate": [
            value if number <= false_refusal_prompts else None
            for value, number in zip(refused, ordinary, strict=True)
        ],
        "false_refusal_borderline": of("borderline", lambda question, answer: is_refusal(answer.text)),
        "answer_tokens": [float(len(answer.ids)) for _, answer in answered],
        "truncated_rate": [float(not answer.finished) for _, answer in answered],
    }
    if judge is not None:
        values |= {
            "gold_helpfulness": of(
                "ordinary", lambda question, answer: judge.helpfulness(question.id, answer.text)
            ),
            "violation_rate": of("harmful", lambda question, answer: judge.safety(answer.text) == "harmful"),
            "invalid_rate": of("harmful", lambda question, answer: judge.safety(answer.text) == "invalid"),
        }
    return values


def score_values(answered: Answered, scorers: Mapping[str, Scores]) -> dict[str, Column]:
    """Score by each reward model where it counts: helpfulness on ordinary, safety on harmful prompts."""
    values: dict[str, Column] = {}
    kinds: tuple[tuple[str, Kind], ...] = (("helpfulness", "ordinary"), ("safety", "harmful"))
    for name, kind in kinds:
        rows = _of_kinds(answered, kind)
        if name in scorers and rows:
            asked = [question.ids for question, _ in rows]
            said = [without_end(answer.ids, answer.finished) for _, answer in rows]
            scores = scorers[name](asked, said, f"{name} scores")
            values[f"{name}_score"] = _placed(answered, scores.tolist(), kind)
    return values


def summed_logprobs(model: LlamaForCausalLM, answered: Answered) -> Column:
    """log p(answer | prompt) of the answers to ordinary and harmful prompts, EOS included, in nats."""
    rows = _of_kinds(answered, "ordinary", "harmful")
    asked, said = [question.ids for question, _ in rows], [answer.ids for _, answer in rows]
    found = answer_logprobs(model, asked, said, label="log-probabilities")
    return _placed(answered, [sum(values) for values in found], "ordinary", "harmful")


def log_ratios(logprobs: Column, reference: Column) -> Column:
    """Summed log-ratio of each answer, in nats; the mean is KL(version || reference) (section 3.2.3)."""
    return [
        None if ours is None or theirs is None else ours - theirs
        for ours, theirs in zip(logprobs, reference, strict=True)
    ]


def sample_answers(
    answers: Mapping[str, Answered], judge: Judge | None, counts: Mapping[Kind, int]
) -> list[dict[str, Any]]:
    """The same few prompts answered by each version, spread evenly over those of each kind.

    Args:
        answers: by version; every version answered the same questions.
        counts: how many prompts of each kind.

    Returns:
        `{"kind", "prompt", "answers": {version: {"text", "helpfulness", "verdict"}}}` each. Helpfulness is
        gold, null for harmful prompts; the verdict "harmful", "refusal", "invalid" or null.
    """
    samples = []
    for kind, count in counts.items():
        by_version = {name: _of_kinds(answered, kind) for name, answered in answers.items()}
        size = len(next(iter(by_version.values())))
        for place in range(min(count, size)):
            row = place * size // min(count, size)
            question = next(iter(by_version.values()))[row][0]
            samples.append(
                {
                    "kind": kind,
                    "prompt": "\n".join(message["content"] for message in question.messages),
                    "answers": {name: _verdict(*rows[row], judge) for name, rows in by_version.items()},
                }
            )
    return samples


def _verdict(question: Question, answer: Answer, judge: Judge | None) -> dict[str, Any]:
    helpfulness, verdict = None, None
    if judge is None:
        verdict = "refusal" if refusal.is_refusal(answer.text) else None
    elif question.kind == "harmful":
        verdict = judge.safety(answer.text)
    else:
        helpfulness = judge.helpfulness(question.id, answer.text)
        verdict = "refusal" if judge.is_refusal(answer.text) else None
    return {"text": answer.text, "helpfulness": helpfulness, "verdict": verdict}


def _of_kinds(answered: Answered, *kinds: Kind) -> list[tuple[Question, Answer]]:
    return [(question, answer) for question, answer in answered if question.kind in kinds]


def _placed(answered: Answered, values: Sequence[float], *kinds: Kind) -> Column:
    """The values of the answers to prompts of some kinds, each in its answer's place among all."""
    left = iter(values)
    return [next(left) if question.kind in kinds else None for question, _ in answered]
