"""What is measured of one version's answers: gold helpfulness, safety, false refusals, scores, KL."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol

from ..model.reward_models import Scores
from ..sampling.logprobs import answer_logprobs
from ..sampling.sampler import without_end
from . import refusal
from .prompts import EvaluationPrompt, Kind
from .responder import SampledAnswer
from .values import Column

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM

Answered = Sequence[tuple[EvaluationPrompt, SampledAnswer]]


class AnswerJudge(Protocol):
    """What this file needs of the world's gold scorers."""

    def helpfulness(self, question_id: str, answer: str) -> float: ...

    def safety(self, answer: str) -> Literal["harmful", "refusal", "invalid"]: ...

    def is_refusal(self, answer: str) -> bool: ...


def answer_values(
    answered: Answered, judge: AnswerJudge | None, false_refusal_prompts: int
) -> dict[str, Column]:
    """Everything that the texts tell; without a judge (real text) gold figures are left out.

    Refusals of real text are known by their phrases.
    """

    def of(kind: Kind, value: Callable[[EvaluationPrompt, SampledAnswer], float]) -> Column:
        return [float(value(*one)) if one[0].kind == kind else None for one in answered]

    is_refusal = judge.is_refusal if judge is not None else refusal.is_refusal
    ordinary = itertools.accumulate(prompt.kind == "ordinary" for prompt, _ in answered)
    refused = of("ordinary", lambda prompt, answer: is_refusal(answer.text))
    values: dict[str, Column] = {
        "refusal_rate": of("harmful", lambda prompt, answer: is_refusal(answer.text)),
        "false_refusal_rate": [
            value if number <= false_refusal_prompts else None
            for value, number in zip(refused, ordinary, strict=True)
        ],
        "false_refusal_borderline": of("borderline", lambda prompt, answer: is_refusal(answer.text)),
        "answer_tokens": [float(len(answer.ids)) for _, answer in answered],
        "truncated_rate": [float(not answer.finished) for _, answer in answered],
    }
    if judge is not None:
        values |= {
            "gold_helpfulness": of(
                "ordinary", lambda prompt, answer: judge.helpfulness(prompt.id, answer.text)
            ),
            "violation_rate": of("harmful", lambda prompt, answer: judge.safety(answer.text) == "harmful"),
            "invalid_rate": of("harmful", lambda prompt, answer: judge.safety(answer.text) == "invalid"),
        }
    return values


def score_values(answered: Answered, scorers: Mapping[str, Scores]) -> dict[str, Column]:
    """Score by each reward model where it counts: helpfulness on ordinary, safety on harmful prompts."""
    values: dict[str, Column] = {}
    kinds: tuple[tuple[str, Kind], ...] = (("helpfulness", "ordinary"), ("safety", "harmful"))
    for name, kind in kinds:
        rows = _of_kinds(answered, kind)
        if name in scorers and rows:
            asked = [prompt.ids for prompt, _ in rows]
            said = [without_end(answer.ids, answer.finished) for _, answer in rows]
            scores = scorers[name](asked, said, f"{name} scores")
            values[f"{name}_score"] = _placed(answered, scores.tolist(), kind)
    return values


def summed_logprobs(model: LlamaForCausalLM, answered: Answered) -> Column:
    """log p(answer | prompt) of the answers to ordinary and harmful prompts, EOS included, in nats."""
    rows = _of_kinds(answered, "ordinary", "harmful")
    asked, said = [prompt.ids for prompt, _ in rows], [answer.ids for _, answer in rows]
    found = answer_logprobs(model, asked, said, label="log-probabilities")
    return _placed(answered, [sum(values) for values in found], "ordinary", "harmful")


def log_ratios(logprobs: Column, reference: Column) -> Column:
    """Summed log-ratio of each answer, in nats; the mean is KL(version || reference) (section 3.2.3)."""
    return [
        None if ours is None or theirs is None else ours - theirs
        for ours, theirs in zip(logprobs, reference, strict=True)
    ]


def sample_answers(
    answers: Mapping[str, Answered], judge: AnswerJudge | None, counts: Mapping[Kind, int]
) -> list[dict[str, Any]]:
    """The same few prompts answered by each version, spread evenly over those of each kind.

    Args:
        answers: by version; every version answered the same prompts.
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
            prompt = next(iter(by_version.values()))[row][0]
            samples.append(
                {
                    "kind": kind,
                    "prompt": "\n".join(message["content"] for message in prompt.messages),
                    "answers": {name: _verdict(*rows[row], judge) for name, rows in by_version.items()},
                }
            )
    return samples


def _verdict(prompt: EvaluationPrompt, answer: SampledAnswer, judge: AnswerJudge | None) -> dict[str, Any]:
    helpfulness, verdict = None, None
    if judge is None:
        verdict = "refusal" if refusal.is_refusal(answer.text) else None
    elif prompt.kind == "harmful":
        verdict = judge.safety(answer.text)
    else:
        helpfulness = judge.helpfulness(prompt.id, answer.text)
        verdict = "refusal" if judge.is_refusal(answer.text) else None
    return {"text": answer.text, "helpfulness": helpfulness, "verdict": verdict}


def _of_kinds(answered: Answered, *kinds: Kind) -> list[tuple[EvaluationPrompt, SampledAnswer]]:
    return [(prompt, answer) for prompt, answer in answered if prompt.kind in kinds]


def _placed(answered: Answered, values: Sequence[float], *kinds: Kind) -> Column:
    """The values of the answers to prompts of some kinds, each in its answer's place among all."""
    left = iter(values)
    return [next(left) if prompt.kind in kinds else None for prompt, _ in answered]
