"""Distributions of reward-model scores, and their shift between two versions (figures 14, 15 and 20)."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np

from ..measures import REWARD_MODELS
from ..statistics import left_tail, mean_and_error
from .values import Column, Values

QUANTILES = 21  # 0%, 5%, …, 100%
BINS = 20  # of scores from 0 to 1
POINTS = 300


def distributions(values: Values, groups: Sequence[Hashable]) -> dict[str, dict[str, Any] | None]:
    """Returns the distribution of each reward model's scores of one version; null if there are none.

    The helpfulness model scores answers to ordinary prompts, the safety model those to harmful ones.
    """
    return {
        f"{name}_score": _distribution(values[f"{name}_score"], groups) if f"{name}_score" in values else None
        for name in REWARD_MODELS
    }


def _distribution(column: Column, groups: Sequence[Hashable]) -> dict[str, Any] | None:
    pairs = [(value, group) for value, group in zip(column, groups, strict=True) if value is not None]
    if not pairs:
        return None
    scores, score_groups = [value for value, _ in pairs], [group for _, group in pairs]
    mean, mean_se = mean_and_error(scores, score_groups)
    tail, tail_se = left_tail(scores, score_groups)
    quantiles = np.quantile(scores, np.linspace(0, 1, QUANTILES)).tolist()
    return {
        "mean": mean,
        "mean_se": mean_se,
        "left_tail": tail,
        "left_tail_se": tail_se,
        "quantiles": quantiles,
        "histogram": (np.histogram(scores, BINS, (0, 1))[0] / len(scores)).tolist(),
    }


def score_shift(versions: Mapping[str, Values]) -> dict[str, Any]:
    """Returns scores of answers to the same prompts before and after RLHF, `[before, after]` each.

    The first and the last version are compared, in at most `POINTS` evenly spaced answers per reward model.
    All values are null if there is one version only, or without the reward model.
    """
    before, after = next(iter(versions)), list(versions)[-1]
    if before == after:
        return {"before": None, "after": None, **dict.fromkeys(REWARD_MODELS)}
    points = {
        name: _points(versions[before].get(f"{name}_score"), versions[after].get(f"{name}_score"))
        for name in REWARD_MODELS
    }
    return {"before": before, "after": after, **points}


def _points(before: Column | None, after: Column | None) -> list[list[float]] | None:
    if before is None or after is None:
        return None
    pairs = [
        [round(x, 4), round(y, 4)]
        for x, y in zip(before, after, strict=True)
        if x is not None and y is not None
    ]
    count = min(POINTS, len(pairs))
    return [pairs[place * len(pairs) // count] for place in range(count)] or None
