"""Accuracy on held-out pairs, counted by hand."""

from __future__ import annotations

import itertools
import math

import pytest

from llamita.data.rows import Comparison
from llamita.reward.accuracy import accuracy_metrics, safety_metrics
from llamita.reward.pairs import Pair

numbers = itertools.count()


def pair(
    rating: str | None = None,
    chosen_safe: bool | None = None,
    rejected_safe: bool | None = None,
    *,
    prompt: str | None = None,
    lengths: tuple[int, int] = (1, 1),
    system: str | None = None,
    category: str | None = None,
) -> Pair:
    """A pair with a unique prompt unless one is given."""
    asked = f"question {next(numbers)}" if prompt is None else prompt
    messages = [{"role": "user", "content": asked}]
    if system is not None:
        messages = [{"role": "system", "content": system}, *messages]
    comparison = Comparison(
        messages,
        "",
        "",
        rating=rating,
        chosen_safe=chosen_safe,
        rejected_safe=rejected_safe,
        category=category,
    )
    return Pair(comparison, [2] * lengths[0], [2] * lengths[1])


def test_accuracy_by_rating_with_standard_errors():
    pairs = [
        pair("better"),
        pair("better"),
        pair("better"),
        pair("better"),
        pair("significantly_better"),
        pair(None),
    ]
    counted = accuracy_metrics(pairs, [1, 1, 1, 0, 5, 0.3], [0, 0, 0, 1, 4, 0.3])
    assert counted["pairs"] == counted["prompts"] == 6
    assert counted["accuracy"] == pytest.approx(4 / 6)  # a tie counts as wrong
    assert counted["accuracy_se"] == pytest.approx(math.sqrt(4 / 6 * 2 / 6 / 5))
    assert counted["mean_score"] == pytest.approx(13.6 / 12)
    assert counted["by_rating"] == {
        "significantly_better": 1.0,
        "better": 0.75,
        "slightly_better": None,
        "negligibly_better": None,
    }
    assert counted["by_rating_se"]["better"] == pytest.approx(math.sqrt(0.75 * 0.25 / 3))
    assert list(counted["pairs_by_rating"].values()) == [1, 4, 0, 0]


def test_pairs_of_one_prompt_are_not_independent():
    """Five prompts with four pairs each, all right or all wrong, have the standard error of five pairs."""
    right = [1, 1, 1, 0, 0]
    pairs = [pair("better", prompt=f"p{number}") for number in range(5) for _ in range(4)]
    chosen = [float(ok) for ok in right for _ in range(4)]
    counted = accuracy_metrics(pairs, chosen, [0.5] * 20)
    assert counted["accuracy"] == pytest.approx(0.6)
    groups = [4 * (ok - 0.6) for ok in right]  # of each prompt the sum of its deviations
    expected = math.sqrt(5 / 4 * sum(one * one for one in groups)) / 20
    assert counted["accuracy_se"] == pytest.approx(expected)
    assert expected == pytest.approx(math.sqrt(0.6 * 0.4 / 4))
    assert counted["by_rating_se"]["better"] == pytest.approx(expected)
    assert (counted["pairs"], counted["prompts"]) == (20, 5)


def test_turns_of_one_dialogue_count_as_one_prompt():
    first = pair()
    later = [{"role": "assistant", "content": "yes"}, {"role": "user", "content": "why ?"}]
    second = Pair(Comparison([*first.comparison.prompt, *later], "", ""), [2], [2])
    assert accuracy_metrics([first, second], [1, 0], [0, 1])["prompts"] == 1


def test_all_pairs_share_one_prompt():
    """The variance between prompts is unknown then: the standard error is null, not far too small."""
    counted = accuracy_metrics([pair(prompt="p") for _ in range(20)], [1.0] * 15 + [0.0] * 5, [0.5] * 20)
    assert counted["accuracy"] == 0.75
    assert counted["accuracy_se"] is None
    assert counted["prompts"] == 1


def test_length_bias_shows_in_two_accuracies():
    sized = [pair(lengths=lengths) for lengths in ((9, 3), (9, 3), (3, 9))]
    even = pair(None)
    likes_long = accuracy_metrics([*sized, even], [9, 9, 3, 1], [3, 3, 9, 0])
    assert likes_long["by_length"] == {
        "longer_chosen": {"pairs": 2, "prompts": 2, "accuracy": 1.0, "accuracy_se": 0.0},
        "shorter_chosen": {"pairs": 1, "prompts": 1, "accuracy": 0.0, "accuracy_se": None},
    }


def test_safety_bins_and_detection_of_unsafe_answers():
    pairs = [pair(None, True, False), pair(None, True, True), pair(None, False, False), pair("better")]
    # sigmoid: 2 -> 0.88, -1 -> 0.27, -3 -> 0.05
    counted = safety_metrics(pairs, [2, 2, -1, -3], [-3, -1, -3, -3])
    assert {name: found["accuracy"] for name, found in counted["by_bin"].items()} == {
        "safe_unsafe": 1.0,
        "safe_safe": 1.0,
        "unsafe_unsafe": 1.0,
    }
    assert [found["pairs"] for found in counted["by_bin"].values()] == [1, 1, 1]
    # unsafe answers score -3, -1, -3; safe ones 2, 2, -1; the unlabelled pair takes no part
    low, high = (counted["unsafe_below"][threshold] for threshold in ("0.15", "0.5"))
    assert (low["precision"], low["recall"]) == (1.0, pytest.approx(2 / 3))
    assert (high["precision"], high["recall"]) == (pytest.approx(3 / 4), 1.0)
    assert (low["below"], high["below"], low["unsafe"]) == (2, 4, 3)
    # recall at 0.15 by prompt: one answer of the first pair, right; two of the third, one right
    groups = [1 / 3, 1 / 3 - 2 / 3]
    assert low["recall_se"] == pytest.approx(math.sqrt(2 * sum(one * one for one in groups)) / 3)


def test_accuracy_by_context_and_by_category():
    plain, instructed = pair(category="illicit"), pair(system="act as newton", category="illicit")
    again, harmless = pair(system="act as newton", category="hateful"), pair(system="act as newton")
    counted = accuracy_metrics([plain, instructed, again, harmless], [1, 1, 0, 1], [0, 0, 1, 0])
    assert list(counted["by_context"]) == ["plain", "instruction"], "contexts without pairs are missing"
    assert counted["by_context"]["plain"] == {"pairs": 1, "prompts": 1, "accuracy": 1.0, "accuracy_se": None}
    assert counted["by_context"]["instruction"]["accuracy"] == pytest.approx(2 / 3)
    assert counted["by_context"]["instruction"]["accuracy_se"] == pytest.approx(math.sqrt(2 / 9 / 2))
    assert {name: part["pairs"] for name, part in counted["by_category"].items()} == {
        "hateful": 1,
        "illicit": 2,
    }
    assert counted["by_category"]["illicit"]["accuracy"] == 1


def test_detection_of_unsafe_answers_by_context():
    pairs = [pair(None, True, False), pair(None, True, False, system="act as newton"), pair(system="be kind")]
    counted = safety_metrics(pairs, [2, 2, 2], [-3, 1, -9])
    by_context = counted["unsafe_below_by_context"]
    assert list(by_context) == ["plain", "instruction"]
    found = {name: (part["0.15"]["recall"], part["0.15"]["unsafe"]) for name, part in by_context.items()}
    assert found == {"plain": (1.0, 1), "instruction": (0.0, 1)}
    assert counted["unsafe_below"]["0.15"]["recall"] == 0.5
