"""Contaminated tokens of samples, and the scores of clean and dirty samples (section A.6, table 51)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..statistics import mean_and_error, measure
from .matches import SHORTEST_SPAN

MIN_SPANS = (10, 20, 30, 40, 50)
CLEAN, DIRTY = 0.2, 0.8
SIGNIFICANT = 2.0
EXPECTED = {"clean": -1, "not_clean": 1, "not_dirty": -1, "dirty": 1}
"""Subset -> sign of its difference from the mean score if contamination has raised the scores."""


def contaminated_shares(lengths: np.ndarray, bounds: np.ndarray, min_span: int) -> np.ndarray:
    """Returns the share of contaminated tokens of each sample, float64 `[samples]`; 0 for an empty sample.

    A token is contaminated if it is in a span of at least `min_span` tokens, and of more than 10 in any case.

    Args:
        lengths: longest span that begins at each token, as in `search.Matches`.
        bounds: where samples begin and end, as in `index.SampleIndex`.
    """
    begins = np.flatnonzero(lengths >= max(min_span, SHORTEST_SPAN))
    changes = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.add.at(changes, begins, 1)
    np.subtract.at(changes, begins + lengths[begins], 1)
    contaminated = np.concatenate(([0], np.cumsum(np.cumsum(changes[:-1]) > 0)))
    counts = contaminated[bounds[1:]] - contaminated[bounds[:-1]]
    return counts / np.maximum(1, np.diff(bounds))


def subset_masks(shares: np.ndarray) -> dict[str, np.ndarray]:
    """Returns which samples are clean, not clean, not dirty and dirty, bool `[samples]` each."""
    return {
        "clean": shares < CLEAN,
        "not_clean": shares >= CLEAN,
        "not_dirty": shares < DIRTY,
        "dirty": shares >= DIRTY,
    }


def subset_figures(shares: np.ndarray, scores: Sequence[float] | None) -> dict[str, Any]:
    """Returns the figures of one benchmark for one minimum span.

    Args:
        shares: share of contaminated tokens of each sample, float64 `[samples]`.
        scores: score of each sample; None if unknown.

    Returns:
        `contaminated` with its error: the mean share; `affected`: see `is_affected`; and for each subset
        `samples`, `contaminated` (its mean share, null without samples), and the keys of `score_figures`.
    """
    subsets = {}
    for name, mask in subset_masks(shares).items():
        inside = shares[mask].tolist()
        subsets[name] = {"samples": len(inside), "contaminated": mean_and_error(inside)[0]}
        subsets[name] |= score_figures(scores, mask)
    affected = None if scores is None else is_affected({name: one["z"] for name, one in subsets.items()})
    return {**measure("contaminated", shares.tolist()), "affected": affected, "subsets": subsets}


def score_figures(scores: Sequence[float] | None, mask: np.ndarray) -> dict[str, float | None]:
    """Returns `score` with its error, `expected` and `z` of a subset; null if it is empty.

    `expected` is the mean of the score of n random samples, which is that of all samples, and `z` is
    (score − expected) / (σ / √n), where σ is the standard deviation of the scores of all samples. Samples are
    drawn with replacement, as in table 51. `z` is null if all scores are equal.
    """
    if scores is None or not mask.any():
        return {"score": None, "score_se": None, "expected": None, "z": None}
    every = np.asarray(scores, dtype=np.float64)
    inside = every[mask]
    expected, deviation = float(every.mean()), float(every.std())
    z = (float(inside.mean()) - expected) / deviation * math.sqrt(len(inside)) if deviation > 0 else None
    return {**measure("score", inside.tolist()), "expected": expected, "z": z}


def is_affected(z: dict[str, float | None]) -> bool:
    """Returns whether contamination has raised the scores: all four subsets differ by more than two errors.

    Clean and not dirty samples must have lower scores than expected, the others higher ones.
    """
    return all(
        value is not None and sign * value > SIGNIFICANT
        for value, sign in ((z[name], EXPECTED[name]) for name in EXPECTED)
    )
