"""Measures of one version's answers: gold helpfulness, safety, false refusals, reward-model scores, KL."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol

from ..model import refusal
from ..model.reward_models import Scores
from ..sampling.logprobs import answer_logprobs
from ..sampling.sampler import without_end
from .prompts import EvaluationPrompt, Kind
from .responder import SampledAnswer
from .values import Column

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM

Answered = Sequence[tuple[EvaluationPrompt, SampledAnswer]]


class AnswerScorer(Protocol):
    """Scores answers by the ground truth; `miniature.gold.Gold` implements it."""

    def helpfulness(self, question_id: str, answer: str) -> float: ...

    def safety(self, answer: str) -> Literal["harmful", "refusal", "invalid"]: ...

    def is_refusal(self, answer: str) -> bool: ...


def answer_values(
    answered: Answered, gold: AnswerScorer | None, false_refusal_prompts: int
) -> dict[str, Column]:
    """Returns the measures that depend on the texts only.

    Without ground truth (`gold` is None) the gold measures are omitted, and refusals are detected by phrases.
    """

    def of(kind: Kind, value: Callable[[EvaluationPrompt, SampledAnswer], float]) -> Column:
        return [float(value(prompt, answer)) if prompt.kind == kind else None for prompt, answer in answered]

    is_refusal = gold.is_refusal if gold is not None else refusal.is_refusal
    ordinary_so_far = itertools.accumulate(prompt.kind == "ordinary" for prompt, _ in answered)
    ordinary_refusals = of("ordinary", lambda prompt, answer: is_refusal(answer.text))
    values: dict[str, Column] = {
        "refusal_rate": of("harmful", lambda prompt, answer: is_refusal(answer.text)),
        "false_refusal_rate": [
            value if count <= false_refusal_prompts else None
            for value, count in zip(ordinary_refusals, ordinary_so_far, strict=True)
        ],
        "false_refusal_borderline": of("borderline", lambda prompt, answer: is_refusal(answer.text)),
        "answer_tokens": [float(len(answer.ids)) for _, answer in answered],
        "truncated_rate": [float(not answer.finished) for _, answer in answered],
    }
    if gold is not None:
        values |= {
            "gold_helpfulness": of(
                "ordinary", lambda prompt, answer: gold.helpfulness(prompt.id, answer.text)
            ),
            "violation_rate": of("harmful", lambda prompt, answer: gold.safety(answer.text) == "harmful"),
            "invalid_rate": of("harmful", lambda prompt, answer: gold.safety(answer.text) == "invalid"),
        }
    return values


def score_values(answered: Answered, scorers: Mapping[str, Scores]) -> dict[str, Column]:
    """Returns reward-model scores: helpfulness on ordinary prompts, safety on harmful prompts."""
    values: dict[str, Column] = {}
    kinds: tuple[tuple[str, Kind], ...] = (("helpfulness", "ordinary"), ("safety", "harmful"))
    for name, kind in kinds:
        rows = _select(answered, kind)
        if name in scorers and rows:
            prompts = [prompt.ids for prompt, _ in rows]
            answers = [without_end(answer.ids, answer.finished) for _, answer in rows]
            scores = scorers[name](prompts, answers, f"{name} scores")
            values[f"{name}_score"] = _align(answered, scores.tolist(), kind)
    return values


def summed_logprobs(model: LlamaForCausalLM, answered: Answered) -> Column:
    """Returns log p(answer | prompt) in nats, EOS included, for answers to ordinary and harmful prompts."""
    rows = _select(answered, "ordinary", "harmful")
    prompts, answers = [prompt.ids for prompt, _ in rows], [answer.ids for _, answer in rows]
    logprobs = answer_logprobs(model, prompts, answers, label="logprobs")
    return _align(answered, [sum(row) for row in logprobs], "ordinary", "harmful")


def log_ratios(logprobs: Column, reference: Column) -> Column:
    """Returns the summed log-ratio of each answer in nats; the mean estimates KL(version || reference)."""
    return [
        None if ours is None or theirs is None else ours - theirs
        for ours, theirs in zip(logprobs, reference, strict=True)
    ]


def sample_answers(
    answers: Mapping[str, Answered], gold: AnswerScorer | None, counts: Mapping[Kind, int]
) -> list[dict[str, Any]]:
    """Returns the answers of all versions to a few prompts, evenly spaced among the prompts of each kind.

    Args:
        answers: answers by version; every version answered the same prompts.
        gold: scorer by the ground truth; None if it is unknown.
        counts: number of prompts by kind.

    Returns:
        Rows `{"kind", "prompt", "answers": {version: {"text", "helpfulness", "verdict"}}}`: `helpfulness` by
        the ground truth, null for harmful prompts; `verdict` "harmful", "refusal", "invalid" or null.
    """
    samples = []
    for kind, count in counts.items():
        by_version = {name: _select(answered, kind) for name, answered in answers.items()}
        size = len(next(iter(by_version.values())))
        for place in range(min(count, size)):
            row = place * size // min(count, size)
            prompt = next(iter(by_version.values()))[row][0]
            samples.append(
                {
                    "kind": kind,
                    "prompt": "\n".join(message["content"] for message in prompt.messages),
                    "answers": {name: _verdict(*rows[row], gold) for name, rows in by_version.items()},
                }
            )
    return samples


def _verdict(prompt: EvaluationPrompt, answer: SampledAnswer, gold: AnswerScorer | None) -> dict[str, Any]:
    helpfulness, verdict = None, None
    if gold is None:
        verdict = "refusal" if refusal.is_refusal(answer.text) else None
    elif prompt.kind == "harmful":
        verdict = gold.safety(answer.text)
    else:
        helpfulness = gold.helpfulness(prompt.id, answer.text)
        verdict = "refusal" if gold.is_refusal(answer.text) else None
    return {"text": answer.text, "helpfulness": helpfulness, "verdict": verdict}


def _select(answered: Answered, *kinds: Kind) -> list[tuple[EvaluationPrompt, SampledAnswer]]:
    return [(prompt, answer) for prompt, answer in answered if prompt.kind in kinds]


def _align(answered: Answered, values: Sequence[float], *kinds: Kind) -> Column:
    """Returns a column for all answers from the values of answers to some kinds; None for other answers."""
    remaining = iter(values)
    return [next(remaining) if prompt.kind in kinds else None for prompt, _ in answered]
