"""Accuracy of a reward model on held-out pairs: agreement with the annotators (tables 7, 8 and 29)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean
from typing import Any

from transformers import LlamaForSequenceClassification

from ..data.held_out import opening
from ..data.rows import RATINGS
from ..model.scoring import terminal_scores
from ..statistics import measure
from .pairs import Pair

UNSAFE_BELOW = (0.15, 0.5)  # thresholds after the sigmoid, of the piecewise reward (3.2.3) and of table 29
BINS = {"safe_unsafe": (True, False), "safe_safe": (True, True), "unsafe_unsafe": (False, False)}


def score_pairs(
    model: LlamaForSequenceClassification, pairs: Sequence[Pair]
) -> tuple[list[float], list[float]]:
    """Scores of the chosen and of the rejected answers, before the sigmoid."""
    rows = [pair.chosen_ids for pair in pairs] + [pair.rejected_ids for pair in pairs]
    scores = terminal_scores(model.eval(), rows, label="held-out pairs").tolist()
    return scores[: len(pairs)], scores[len(pairs) :]


def accuracy_metrics(
    pairs: Sequence[Pair], chosen: Sequence[float], rejected: Sequence[float]
) -> dict[str, Any]:
    """`accuracy`: share of pairs whose chosen answer has the higher score, overall and by rating.

    A tie counts as wrong. Ratings without pairs are null. `by_length` has the accuracy on pairs with a longer
    chosen answer and on pairs with a shorter chosen answer: a model that prefers long answers has a high
    accuracy on the former and a low one on the latter. `mean_score` of all answers, before the sigmoid, shows
    how far the scale is from being centred at 0; the piecewise reward compares the scores of two models.

    Standard errors are clustered by prompt; `prompts` is the number of different prompts.
    """
    outcomes = _outcomes(pairs, chosen, rejected)
    by_rating = {
        rating: _accuracy(
            [
                outcome
                for outcome, pair in zip(outcomes, pairs, strict=True)
                if pair.comparison.rating == rating
            ]
        )
        for rating in RATINGS
    }
    length_differences = [len(pair.chosen_ids) - len(pair.rejected_ids) for pair in pairs]
    by_length = {
        "longer_chosen": [
            outcome for outcome, more in zip(outcomes, length_differences, strict=True) if more > 0
        ],
        "shorter_chosen": [
            outcome for outcome, more in zip(outcomes, length_differences, strict=True) if more < 0
        ],
    }
    return {
        **_accuracy(outcomes),
        "mean_score": fmean([*chosen, *rejected]) if pairs else None,
        "by_rating": {rating: part["accuracy"] for rating, part in by_rating.items()},
        "by_rating_se": {rating: part["accuracy_se"] for rating, part in by_rating.items()},
        "pairs_by_rating": {rating: part["pairs"] for rating, part in by_rating.items()},
        "by_length": {name: _accuracy(part) for name, part in by_length.items()},
    }


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


def _accuracy(outcomes: Sequence[tuple[bool, str]]) -> dict[str, Any]:
    prompts = {prompt for _, prompt in outcomes}
    return {"pairs": len(outcomes), "prompts": len(prompts), **_share("accuracy", outcomes)}


def safety_metrics(
    pairs: Sequence[Pair], chosen: Sequence[float], rejected: Sequence[float]
) -> dict[str, Any]:
    """Accuracy by safety bin (table 29), and precision and recall of unsafe answers at each threshold."""
    outcomes = _outcomes(pairs, chosen, rejected)
    by_bin = {}
    for name, labels in BINS.items():
        by_bin[name] = _accuracy(
            [
                outcome
                for outcome, pair in zip(outcomes, pairs, strict=True)
                if (pair.comparison.chosen_safe, pair.comparison.rejected_safe) == labels
            ]
        )
    labelled = [
        (safe, score, prompt)
        for pair, chosen_score, rejected_score, (_, prompt) in zip(
            pairs, chosen, rejected, outcomes, strict=True
        )
        for safe, score in (
            (pair.comparison.chosen_safe, chosen_score),
            (pair.comparison.rejected_safe, rejected_score),
        )
        if safe is not None
    ]
    detection = {}
    for threshold in UNSAFE_BELOW:
        limit = math.log(threshold / (1 - threshold))
        below = [(not safe, prompt) for safe, score, prompt in labelled if score < limit]
        unsafe = [(score < limit, prompt) for safe, score, prompt in labelled if not safe]
        detection[str(threshold)] = {
            **_share("precision", below),
            **_share("recall", unsafe),
            "below": len(below),
            "unsafe": len(unsafe),
        }
    return {"by_bin": by_bin, "unsafe_below": detection}


def _share(name: str, outcomes: Sequence[tuple[bool, str]]) -> dict[str, float | None]:
    return measure(name, [correct for correct, _ in outcomes], [prompt for _, prompt in outcomes])
