"""Shares of contaminated tokens, the four subsets and their statistics."""

from __future__ import annotations

import math

import numpy as np
import pytest

from llamita.contamination.subsets import (
    contaminated_shares,
    is_affected,
    score_figures,
    subset_figures,
    subset_masks,
)


def test_overlapping_spans_count_once_and_short_ones_not_at_all() -> None:
    lengths = np.zeros(60, np.int32)
    lengths[[0, 5, 30, 45]] = [12, 11, 20, 11]
    bounds = np.array([0, 20, 20, 60])
    assert contaminated_shares(lengths, bounds, 10).tolist() == [16 / 20, 0, (20 + 6) / 40]
    assert contaminated_shares(lengths, bounds, 12).tolist() == [12 / 20, 0, 20 / 40]
    assert contaminated_shares(lengths, bounds, 21).tolist() == [0, 0, 0]


def test_the_limits_of_the_subsets() -> None:
    masks = subset_masks(np.array([0, 0.199, 0.2, 0.799, 0.8, 1]))
    assert {name: mask.nonzero()[0].tolist() for name, mask in masks.items()} == {
        "clean": [0, 1],
        "not_clean": [2, 3, 4, 5],
        "not_dirty": [0, 1, 2, 3],
        "dirty": [4, 5],
    }


def test_scores_of_a_subset_in_plain_python() -> None:
    scores = [1.0, 0.0, 1.0, 1.0, 0.0, 0.5]
    figures = score_figures(scores, np.array([True, False, True, True, False, False]))
    mean = sum(scores) / 6
    deviation = math.sqrt(sum((score - mean) ** 2 for score in scores) / 6)
    assert figures["expected"] == pytest.approx(mean)
    assert figures["z"] == pytest.approx((3 - 3 * mean) / (deviation * math.sqrt(3)))
    assert (figures["score"], figures["score_se"]) == (1.0, 0.0)


def test_what_is_unknown_is_null() -> None:
    unknown = {"score": None, "score_se": None, "expected": None, "z": None}
    assert score_figures([1.0, 0.0], np.array([False, False])) == unknown
    assert score_figures(None, np.array([True, True])) == unknown
    assert score_figures([1.0, 1.0], np.array([True, False]))["z"] is None
    figures = subset_figures(np.array([0.0, 0.5]), None)
    assert figures["affected"] is None
    assert figures["subsets"]["dirty"] == {"samples": 0, "contaminated": None, **unknown}


def test_affected_only_if_all_four_subsets_differ_in_the_expected_direction() -> None:
    z = {"clean": -2.1, "not_clean": 2.1, "not_dirty": -2.1, "dirty": 2.1}
    assert is_affected(z)
    for name, value in z.items():
        assert not is_affected(z | {name: -value})
        assert not is_affected(z | {name: value / 1.1})
        assert not is_affected(z | {name: None})


def test_scores_that_contamination_raised() -> None:
    shares = np.repeat([0.0, 0.5, 1.0], 200)
    generator = np.random.default_rng(0)
    raised = (generator.random(600) < np.repeat([0.3, 0.4, 0.9], 200)).astype(float).tolist()
    figures = subset_figures(shares, raised)
    assert figures["affected"]
    assert figures["contaminated"] == 0.5
    assert {name: one["samples"] for name, one in figures["subsets"].items()} == {
        "clean": 200,
        "not_clean": 400,
        "not_dirty": 400,
        "dirty": 200,
    }
    assert not subset_figures(shares, (generator.random(600) < 0.5).astype(float).tolist())["affected"]
