"""Agreement with the annotators, counted by hand."""

from __future__ import annotations

import math

import pytest

from llamita.data.rows import Comparison
from llamita.reward.accuracy import agreement, safety_agreement
from llamita.reward.pairs import Pair


def pair(rating: str | None, chosen_safe: bool | None = None, rejected_safe: bool | None = None) -> Pair:
    return Pair(Comparison([], "", "", rating, chosen_safe, rejected_safe), [2], [2])


def test_accuracy_by_rating_with_standard_errors():
    pairs = [
        pair("better"),
        pair("better"),
        pair("better"),
        pair("better"),
        pair("significantly_better"),
        pair(None),
    ]
    counted = agreement(pairs, [1, 1, 1, 0, 5, 0.3], [0, 0, 0, 1, 4, 0.3])
    assert counted["pairs"] == 6
    assert counted["accuracy"] == pytest.approx(4 / 6)  # a tie is no agreement
    assert counted["accuracy_se"] == pytest.approx(math.sqrt(4 / 6 * 2 / 6 / 6))
    assert counted["mean_score"] == pytest.approx(13.6 / 12)
    assert counted["by_rating"] == {
        "significantly_better": 1.0,
        "better": 0.75,
        "slightly_better": None,
        "negligibly_better": None,
    }
    assert counted["by_rating_se"]["better"] == pytest.approx(math.sqrt(0.75 * 0.25 / 4))
    assert list(counted["pairs_by_rating"].values()) == [1, 4, 0, 0]


def test_length_bias_shows_in_two_accuracies():
    sized = [
        Pair(Comparison([], "", ""), [2] * longer, [2] * other) for longer, other in ((9, 3), (9, 3), (3, 9))
    ]
    even = pair(None)
    likes_long = agreement([*sized, even], [9, 9, 3, 1], [3, 3, 9, 0])
    assert likes_long["by_length"] == {
        "longer_chosen": {"pairs": 2, "accuracy": 1.0, "accuracy_se": 0.0},
        "shorter_chosen": {"pairs": 1, "accuracy": 0.0, "accuracy_se": 0.0},
    }


def test_safety_bins_and_detection_of_unsafe_answers():
    pairs = [pair(None, True, False), pair(None, True, True), pair(None, False, False), pair("better")]
    # sigmoid: 2 -> 0.88, -1 -> 0.27, -3 -> 0.05
    counted = safety_agreement(pairs, [2, 2, -1, -3], [-3, -1, -3, -3])
    assert {name: found["accuracy"] for name, found in counted["by_bin"].items()} == {
        "safe_unsafe": 1.0,
        "safe_safe": 1.0,
        "unsafe_unsafe": 1.0,
    }
    assert [found["pairs"] for found in counted["by_bin"].values()] == [1, 1, 1]
    # unsafe answers score -3, -1, -3; safe ones 2, 2, -1; the unlabelled pair takes no part
    assert counted["unsafe_below"]["0.15"] == {"precision": 1.0, "recall": pytest.approx(2 / 3)}
    assert counted["unsafe_below"]["0.5"] == {"precision": pytest.approx(3 / 4), "recall": 1.0}
