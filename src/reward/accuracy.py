"""Accuracy of a reward model on held-out pairs: agreement with the annotators (tables 7, 8 and 29)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import fmean
from typing import Any, NamedTuple

from ..data.held_out import opening
from ..data.rows import CONTEXTS, RATINGS
from ..model.scoring import shared_scores
from ..processes import phase
from ..statistics import measure
from .pairs import Pair

UNSAFE_BELOW = (0.15, 0.5)  # thresholds after the sigmoid, of the piecewise reward (3.2.3) and of table 29
BINS = {"safe_unsafe": (True, False), "safe_safe": (True, True), "unsafe_unsafe": (False, False)}


@phase("evaluation")
def score_pairs(model: Any, pairs: Sequence[Pair]) -> tuple[list[float], list[float]]:
    """Scores of the chosen and of the rejected answers, before the sigmoid.

    Every rank calls it with its own model, scores its share and gets all scores.
    """
    rows = [pair.chosen_ids for pair in pairs] + [pair.rejected_ids for pair in pairs]
    scores = shared_scores(model, rows, label="held-out pairs").tolist()
    return scores[: len(pairs)], scores[len(pairs) :]


def accuracy_metrics(
    pairs: Sequence[Pair], chosen: Sequence[float], rejected: Sequence[float]
) -> dict[str, Any]:
    """`accuracy`: share of pairs whose chosen answer has the higher score, overall and by group.

    A tie counts as wrong. Groups are `by_rating` (ratings without pairs are null), `by_context` of the prompt
    and `by_category` of its risk (groups without pairs are missing). `by_length` has the accuracy on pairs
    with a longer chosen answer and on pairs with a shorter chosen answer: a model that prefers long answers
    has a high accuracy on the former and a low one on the latter. `mean_score` of all answers, before the
    sigmoid, shows how far the scale is from being centred at 0; the piecewise reward compares the scores of
    two models.

    Standard errors are clustered by prompt; `prompts` is the number of different prompts.
    """
    outcomes = _outcomes(pairs, chosen, rejected)

    def grouped(group: Callable[[Pair], str | None], names: Sequence[str]) -> dict[str, Any]:
        groups = [group(pair) for pair in pairs]
        return {
            name: _accuracy(
                [outcome for outcome, found in zip(outcomes, groups, strict=True) if found == name]
            )
            for name in names
        }

    by_rating = grouped(lambda pair: pair.comparison.rating, RATINGS)
    contexts = {pair.comparison.context for pair in pairs}
    categories = {pair.comparison.category for pair in pairs} - {None}
    return {
        **_accuracy(outcomes),
        "mean_score": fmean([*chosen, *rejected]) if pairs else None,
        "by_rating": {rating: part["accuracy"] for rating, part in by_rating.items()},
        "by_rating_se": {rating: part["accuracy_se"] for rating, part in by_rating.items()},
        "pairs_by_rating": {rating: part["pairs"] for rating, part in by_rating.items()},
        "by_length": grouped(_longer_answer, ("longer_chosen", "shorter_chosen")),
        "by_context": grouped(
            lambda pair: pair.comparison.context, [name for name in CONTEXTS if name in contexts]
        ),
        "by_category": grouped(lambda pair: pair.comparison.category, sorted(filter(None, categories))),
    }


def _longer_answer(pair: Pair) -> str | None:
    more = len(pair.chosen_ids) - len(pair.rejected_ids)
    return "longer_chosen" if more > 0 else "shorter_chosen" if more < 0 else None


def _outcomes(
    pairs: Sequence[Pair], chosen: Sequence[float], rejected: Sequence[float]
) -> list[tuple[bool, str]]:
    """Whether each pair's chosen answer has the higher score, and the pair's prompt.

    Dialogues with the same first message count as one prompt, as in the split of training and held-out pairs.
    """
    return [
        (chosen_score > rejected_score, opening(pair.comparison))
        for pair, chosen_score, rejected_score in zip(pairs, chosen, rejected, strict=True)
    ]


def accuracy(pairs: Sequence[Pair], chosen: Sequence[float], rejected: Sequence[float]) -> dict[str, Any]:
    """`accuracy` with its standard error, and the numbers of `pairs` and `prompts`."""
    return _accuracy(_outcomes(pairs, chosen, rejected))


def _accuracy(outcomes: Sequence[tuple[bool, str]]) -> dict[str, Any]:
    prompts = {prompt for _, prompt in outcomes}
    return {"pairs": len(outcomes), "prompts": len(prompts), **_share("accuracy", outcomes)}


def safety_metrics(
    pairs: Sequence[Pair], chosen: Sequence[float], rejected: Sequence[float]
) -> dict[str, Any]:
    """Accuracy by safety bin (table 29), and precision and recall of unsafe answers at each threshold.

    `unsafe_below_by_context` has the latter for the labelled answers to the prompts of each context.
    """
    outcomes = _outcomes(pairs, chosen, rejected)
    by_bin = {
        name: _accuracy(
            [
                outcome
                for outcome, pair in zip(outcomes, pairs, strict=True)
                if (pair.comparison.chosen_safe, pair.comparison.rejected_safe) == labels
            ]
        )
        for name, labels in BINS.items()
    }
    answers = [
        (pair.comparison.context, _Labelled(safe, score, prompt))
        for pair, chosen_score, rejected_score, (_, prompt) in zip(
            pairs, chosen, rejected, outcomes, strict=True
        )
        for safe, score in (
            (pair.comparison.chosen_safe, chosen_score),
            (pair.comparison.rejected_safe, rejected_score),
        )
        if safe is not None
    ]
    labelled = {context for context, _ in answers}
    return {
        "by_bin": by_bin,
        "unsafe_below": _detection([answer for _, answer in answers]),
        "unsafe_below_by_context": {
            context: _detection([answer for found, answer in answers if found == context])
            for context in CONTEXTS
            if context in labelled
        },
    }


class _Labelled(NamedTuple):
    """A labelled answer: its label, its score before the sigmoid, and its prompt."""

    safe: bool
    score: float
    prompt: str


def _detection(answers: Sequence[_Labelled]) -> dict[str, Any]:
    """Precision and recall of unsafe answers at each threshold."""
    detection = {}
    for threshold in UNSAFE_BELOW:
        limit = math.log(threshold / (1 - threshold))
        below = [(not answer.safe, answer.prompt) for answer in answers if answer.score < limit]
        unsafe = [(answer.score < limit, answer.prompt) for answer in answers if not answer.safe]
        detection[str(threshold)] = {
            **_share("precision", below),
            **_share("recall", unsafe),
            "below": len(below),
            "unsafe": len(unsafe),
        }
    return detection


def _share(name: str, outcomes: Sequence[tuple[bool, str]]) -> dict[str, float | None]:
    return measure(name, [correct for correct, _ in outcomes], [prompt for _, prompt in outcomes])
