"""Distributions of scores on values counted by hand."""

from __future__ import annotations

import pytest

from llamita.evaluation.distributions import POINTS, distributions, score_shift


def test_quantiles_and_the_lowest_tenth() -> None:
    scores = [place / 100 for place in range(100, -1, -1)]  # 0 to 1
    column = [None, *scores[:50], None, *scores[50:]]
    found = distributions({"safety_score": column}, range(103))
    safety = found["safety_score"]
    assert found["helpfulness_score"] is None
    assert safety["mean"] == pytest.approx(0.5)
    assert safety["quantiles"] == pytest.approx([place / 20 for place in range(21)])
    lowest = sum(place / 100 for place in range(10)) + 0.1 * 0.10  # ten values and a tenth of the next
    assert safety["left_tail"] == pytest.approx(lowest / 10.1)
    assert 0 < safety["left_tail_se"] < safety["left_tail"]


def test_a_model_without_answers_to_score_has_no_distribution() -> None:
    assert distributions({"safety_score": [None, None]}, range(2))["safety_score"] is None


def test_the_shift_pairs_the_first_and_the_last_version() -> None:
    versions = {
        "sft": {"safety_score": [0.1, None, 0.25, 0.5]},
        "v1": {"safety_score": [0.0, 0.0, 0.0, 0.0]},
        "v2": {"safety_score": [0.9, None, 0.75, None], "helpfulness_score": [1.0] * 4},
    }
    assert score_shift(versions) == {
        "before": "sft",
        "after": "v2",
        "helpfulness": None,
        "safety": [[0.1, 0.9], [0.25, 0.75]],
    }


def test_the_shift_has_evenly_spaced_points() -> None:
    many = [place / 1200 for place in range(1200)]
    points = score_shift({"sft": {"safety_score": many}, "v1": {"safety_score": many}})["safety"]
    assert len(points) == POINTS
    assert points[:2] == [[0.0, 0.0], [round(4 / 1200, 4)] * 2]


def test_one_version_has_no_shift() -> None:
    nothing = dict.fromkeys(("before", "after", "helpfulness", "safety"))
    assert score_shift({"sft": {"safety_score": [0.5]}}) == nothing


def test_the_histogram_has_the_share_of_answers_in_each_twentieth() -> None:
    scores = [0.06, 0.07, 0.26, 0.5, 0.9, 0.92, None, 0.94]
    found = distributions({"helpfulness_score": scores}, range(8))["helpfulness_score"]
    expected = [0.0] * 20  # from 0 to 1, wherever the scores are
    expected[1], expected[5], expected[10], expected[18] = 2 / 7, 1 / 7, 1 / 7, 3 / 7
    assert found["histogram"] == pytest.approx(expected)
