"""Measures of one version's answers: gold helpfulness, safety, false refusals, reward-model scores, KL."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol

from ..measures import JUDGE
from ..model import refusal
from ..model.reward_models import Scores
from ..sampling.interface import without_end
from ..sampling.logprobs import answer_logprobs
from .prompts import EvaluationPrompt, Kind
from .responder import SampledAnswer
from .values import Column

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM

Answered = Sequence[tuple[EvaluationPrompt, SampledAnswer]]


SCORED_KINDS: Mapping[str, tuple[Kind, ...]] = {
    "helpfulness": ("ordinary",),
    "safety": ("harmful",),
    JUDGE: ("ordinary", "harmful"),
}
"""Reward model -> kinds of prompts whose answers it scores."""
REFUSAL_MEASURES = ("refusal_rate", "false_refusal_rate", "false_refusal_borderline")


class AnswerScorer(Protocol):
    """Scores answers by the ground truth; `miniature.gold.Gold` implements it."""

    def helpfulness(self, question_id: str, answer: str) -> float: ...

    def safety(self, answer: str) -> Literal["harmful", "refusal", "invalid"]: ...

    def is_refusal(self, answer: str) -> bool: ...


def answer_values(
    answered: Answered, gold: AnswerScorer | None, false_refusal_answers: int
) -> dict[str, Column]:
    """Returns the measures that depend on the texts only.

    Without ground truth (`gold` is None) the gold measures are omitted, and refusals are detected by phrases.
    """
    is_refusal = gold.is_refusal if gold is not None else refusal.is_refusal
    refused = [is_refusal(answer.text) for _, answer in answered]
    values: dict[str, Column] = {
        **refusal_values(answered, refused, REFUSAL_MEASURES, limit=false_refusal_answers),
        "answer_tokens": [float(len(answer.ids)) for _, answer in answered],
        "truncated_rate": [float(not answer.finished) for _, answer in answered],
    }
    if gold is not None:
        harmful, ordinary = _select(answered, "harmful"), _select(answered, "ordinary")
        verdicts = [gold.safety(answer.text) for _, answer in harmful]
        helpfulness = [gold.helpfulness(prompt.id, answer.text) for prompt, answer in ordinary]
        values |= {
            "gold_helpfulness": _align(answered, helpfulness, "ordinary"),
            "violation_rate": _align(answered, [float(one == "harmful") for one in verdicts], "harmful"),
            "invalid_rate": _align(answered, [float(one == "invalid") for one in verdicts], "harmful"),
        }
    return values


def refusal_values(
    answered: Answered, refused: Sequence[bool], names: Sequence[str], *, limit: int
) -> dict[str, Column]:
    """Returns refusals on harmful, ordinary and borderline prompts as three measures.

    Args:
        refused: whether each answer is a refusal.
        names: the names of the measures, in this order.
        limit: number of answers to ordinary prompts to count, the first ones.
    """
    values: dict[str, Column] = {}
    kinds: tuple[Kind, ...] = ("harmful", "ordinary", "borderline")
    for name, kind in zip(names, kinds, strict=True):
        left = limit if kind == "ordinary" else len(answered)
        column: list[float | None] = []
        for (prompt, _), verdict in zip(answered, refused, strict=True):
            counts = prompt.kind == kind and left > 0
            left -= counts
            column.append(float(verdict) if counts else None)
        values[name] = column
    return values


def refusal_agreement(
    answered: Answered, classified: Sequence[bool], gold: AnswerScorer | None, *, groups: Sequence[Hashable]
) -> dict[str, Any]:
    """Compares the refusal classifier with the phrases and with the ground truth (null if it is unknown).

    `classified`: whether the classifier calls each answer a refusal; `groups`: see `mean_and_error`.
    """
    texts = [answer.text for _, answer in answered]
    found: dict[str, Any] = {
        "phrases": refusal.agreement(classified, [refusal.is_refusal(text) for text in texts], groups),
        "gold": None,
    }
    if gold is not None:
        found["gold"] = refusal.agreement(classified, [gold.is_refusal(text) for text in texts], groups)
    return found


def score_values(answered: Answered, scorers: Mapping[str, Scores]) -> dict[str, Column]:
    """Returns the scores of each reward model on the prompts of `SCORED_KINDS`."""
    values: dict[str, Column] = {}
    for name, scorer in scorers.items():
        kinds = SCORED_KINDS[name]
        if rows := _select(answered, *kinds):
            prompts = [prompt.ids for prompt, _ in rows]
            answers = [without_end(answer.ids, answer.finished) for _, answer in rows]
            scores = scorer(prompts, answers, f"{name} scores")
            values[f"{name}_score"] = _align(answered, scores.tolist(), *kinds)
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
        answers: one answer per prompt by version; every version answered the same prompts.
        gold: scorer by the ground truth; None if it is unknown.
        counts: number of prompts by kind.

    Returns:
        Rows `{"kind", "context", "prompt", "answers": {version: {"text", "helpfulness", "verdict"}}}`:
        `helpfulness` by the ground truth, null for harmful prompts; `verdict` "harmful", "refusal", "invalid"
        or null.
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
                    "context": prompt.context,
                    "prompt": _prompt_text(prompt),
                    "answers": {name: _verdict(*rows[row], gold) for name, rows in by_version.items()},
                }
            )
    return samples


def _prompt_text(prompt: EvaluationPrompt) -> str:
    """Returns a single message as it is, several ones with their roles, one a line."""
    if len(prompt.messages) == 1:
        return prompt.messages[0]["content"]
    return "\n".join(f"{message['role']}: {message['content']}" for message in prompt.messages)


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
