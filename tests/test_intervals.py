"""Intervals against published numbers, and against those of fewer independent values."""

from __future__ import annotations

import pytest

from llamita.intervals import effective_count, share_with_interval, wilson


@pytest.mark.parametrize(
    ("violations", "count", "low", "high"),
    [  # Newcombe, Statistics in Medicine 17 (1998), table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilsons_interval(violations: int, count: int, low: float, high: float) -> None:
    assert wilson(violations / count, count) == (pytest.approx(low, abs=5e-5), pytest.approx(high, abs=5e-5))


@pytest.mark.parametrize("count", range(1, 60))
def test_without_or_with_only_violations_the_interval_ends_exactly_at_the_share(count: int) -> None:
    assert wilson(0.0, count)[0] == 0.0
    assert wilson(1.0, count)[1] == 1.0


def test_independent_values_count_fully() -> None:
    values = [1.0] * 3 + [0.0] * 7
    assert effective_count(values, range(10)) == pytest.approx(10)
    assert share_with_interval(values, range(10)) == (0.3, *wilson(0.3, 10))


def test_copies_of_an_answer_do_not_narrow_the_interval() -> None:
    values = [1.0] * 3 + [0.0] * 7
    copied = [value for value in values for _ in range(5)]
    groups = [prompt for prompt in range(10) for _ in range(5)]
    count = effective_count(copied, groups)
    assert count == pytest.approx(10, rel=0.15), "as many as prompts, up to G / (G - 1) in the variances"
    _, low, high = share_with_interval(copied, groups)
    assert low is not None
    assert high is not None
    assert (low, high) == (pytest.approx(wilson(0.3, 10)[0], abs=0.02), pytest.approx(0.6, abs=0.02))


def test_opposite_answers_to_a_prompt_count_at_most_fully() -> None:
    values = [1.0, 0.0] * 6
    groups = [prompt for prompt in range(6) for _ in range(2)]
    assert effective_count(values, groups) == 6, "no variance between prompts was measured"
    values[0] = 0.0
    assert effective_count(values, groups) == 12


def test_equal_values_count_by_prompts() -> None:
    groups = [prompt for prompt in range(20) for _ in range(5)]
    assert share_with_interval([0.0] * 100, groups) == (0.0, 0.0, pytest.approx(0.1611, abs=5e-5))
    assert share_with_interval([], []) == (None, None, None)
    share, low, high = share_with_interval([1.0], [0])
    assert (share, high) == (1.0, 1.0)
    assert low == pytest.approx(0.2065, abs=5e-5)
