"""Metrics of context distillation: share of kept answers, safety scores before and after (figure 16)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..statistics import mean_and_error, measure
from .gate import Answer, Outcome
from .prompts import KINDS

BINS = 20
NO_CATEGORY = "none"
PREPROMPTS = ("generic", "tailored")
RESULTS = ("ungated", "gated")


def distillation_metrics(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Returns the metrics that docs/safety.md describes, apart from those of reading the prompts."""
    answers = [_answers(outcome) for outcome in outcomes]
    ungated = [outcome for outcome in outcomes if outcome.distilled is not None]
    categories = sorted({_category(outcome) for outcome in outcomes})
    return {
        **_kept(outcomes),
        "ungated": len(ungated),
        "by_category": {
            name: _kept([outcome for outcome in outcomes if _category(outcome) == name])
            for name in categories
        },
        "by_preprompt": {
            kind: _kept([outcome for outcome in ungated if outcome.distilled == kind]) for kind in PREPROMPTS
        },
        "usable": {
            kind: mean_and_error([float(answer.usable) for answer in _named(answers, kind)])[0]
            for kind in KINDS
        },
        "scores": {name: _scores(answers, name) for name in (*KINDS, *RESULTS)},
        "score_differences": {name: _differences(answers, name) for name in (*PREPROMPTS, *RESULTS)},
        "score_histograms": {kind: _histogram(answers, kind) for kind in KINDS},
        "score_changes": _score_changes(answers),
    }


def bin_of(score: float) -> int:
    """Index of the score's bin among `BINS` bins of equal width from 0 to 1; 1.0 is in the last one."""
    return min(int(score * BINS), BINS - 1)


def _answers(outcome: Outcome) -> dict[str, Answer]:
    """The answers by kind, and those that remain without and with the gate."""
    by_kind: dict[str, Answer] = {str(kind): answer for kind, answer in outcome.answers.items()}
    return {**by_kind, "ungated": outcome.ungated(), "gated": outcome.gated()}


def _named(answers: Sequence[dict[str, Answer]], name: str) -> list[Answer]:
    return [one[name] for one in answers if name in one]


def _changes(answers: Sequence[dict[str, Answer]], name: str) -> list[float]:
    """Differences to the original answer's score, of the prompts that have an answer of this name."""
    return [one[name].score - one["original"].score for one in answers if name in one]


def _category(outcome: Outcome) -> str:
    return outcome.prompt.prompt.category or NO_CATEGORY


def _kept(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    kept = [float(outcome.kept) for outcome in outcomes]
    return {"prompts": len(kept), "kept": int(sum(kept)), **measure("kept_share", kept)}


def _scores(answers: Sequence[dict[str, Answer]], name: str) -> dict[str, Any]:
    scores = [answer.score for answer in _named(answers, name)]
    return {"prompts": len(scores), **measure("score", scores)}


def _differences(answers: Sequence[dict[str, Answer]], name: str) -> dict[str, Any]:
    changes = _changes(answers, name)
    return {"prompts": len(changes), **measure("difference", changes)}


def _histogram(answers: Sequence[dict[str, Answer]], kind: str) -> list[int]:
    counts = [0] * BINS
    for answer in _named(answers, kind):
        counts[bin_of(answer.score)] += 1
    return counts


def _score_changes(answers: Sequence[dict[str, Answer]]) -> list[dict[str, Any]]:
    """Mean change of the score by bin of the original answer's score (figure 16b)."""
    binned: list[list[dict[str, Answer]]] = [[] for _ in range(BINS)]
    for one in answers:
        binned[bin_of(one["original"].score)].append(one)
    return [
        {
            "from": index / BINS,
            "to": (index + 1) / BINS,
            "count": len(inside),
            **measure("generic", _changes(inside, "generic")),
            **measure("tailored", _changes(inside, "tailored")),
        }
        for index, inside in enumerate(binned)
    ]
