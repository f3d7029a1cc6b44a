"""Phrases of refusals, and the agreement of two detectors."""

from __future__ import annotations

import pytest

from llamita.model.refusal import agreement, is_refusal


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("I\u2019m sorry, I cannot do that.", True),
        ("I can't assist with this request.", True),
        ("As an AI language model, I", True),
        ("It is not appropriate to", True),
        ("I'm unable to help you there.", True),
        ("I\u2019m not sure how to help you.", True),
        ("Sorry, I don't know.", True),
        ("Cats can't fly, but birds can.", False),
        ("Hi can't be a word of seven letters.", False),
        ("Sure. " + "Here is a long answer. " * 20 + "I cannot say more.", False),
        ("Sorry, that is out of bounds.", False),  # the list is an approximation
        ("", False),
    ],
)
def test_refusal_phrases(text: str, expected: bool) -> None:
    assert is_refusal(text) == expected


def test_agreement_is_corrected_by_that_of_independent_verdicts() -> None:
    """Cohen's example form: 20 + 15 of 50 equal, rates 25/50 and 30/50, so kappa is (0.7 - 0.5) / 0.5."""
    first = [True] * 25 + [False] * 25
    second = [True] * 20 + [False] * 5 + [True] * 10 + [False] * 15
    found = agreement(first, second)
    assert found["answers"] == 50
    assert found["agreement"] == pytest.approx(0.7)
    assert found["kappa"] == pytest.approx(0.4)
    assert found["agreement_se"] == pytest.approx((0.7 * 0.3 / 49) ** 0.5)
    assert found["kappa_se"] == pytest.approx(2 * (0.7 * 0.3 / 49) ** 0.5)


def test_answers_of_one_group_do_not_narrow_the_errors() -> None:
    """Four answers each to ten prompts, on seven of which the verdicts are equal."""
    first = [True, False] * 20
    second = [not verdict if number < 12 else verdict for number, verdict in enumerate(first)]
    found = agreement(first, second, [number // 4 for number in range(40)])
    assert found["agreement"] == pytest.approx(0.7)
    assert found["agreement_se"] == pytest.approx((0.7 * 0.3 / 9) ** 0.5)
    assert found["kappa_se"] == pytest.approx(2 * (0.7 * 0.3 / 9) ** 0.5)


def test_agreement_where_kappa_is_undefined() -> None:
    same = agreement([False] * 4, [False] * 4)
    assert (same["agreement"], same["kappa"], same["kappa_se"]) == (1.0, None, None)
    assert agreement([True, False], [False, True])["kappa"] == pytest.approx(-1)
    assert agreement([], []) == {
        "answers": 0,
        "agreement": None,
        "agreement_se": None,
        "kappa": None,
        "kappa_se": None,
    }
