"""Means and standard errors, compared with the standard library and with the formula as a double sum."""

from __future__ import annotations

import math
import random
import statistics

import pytest

from llamita.statistics import left_tail, mean_and_error, measure


@pytest.mark.parametrize("seed", range(5))
def test_against_the_standard_library(seed: int) -> None:
    rng = random.Random(seed)
    values = [rng.gauss(3, 2) for _ in range(rng.randint(2, 300))]
    mean, error = mean_and_error(values)
    assert mean == pytest.approx(statistics.fmean(values))
    assert error == pytest.approx(statistics.stdev(values) / len(values) ** 0.5)


def test_a_rate() -> None:
    mean, error = mean_and_error([True] * 30 + [False] * 70)
    assert mean == 0.3
    assert error == pytest.approx((0.3 * 0.7 / 99) ** 0.5)


def test_no_values_and_one() -> None:
    assert mean_and_error([]) == (None, None)
    assert mean_and_error([2.0]) == (2.0, None)
    assert measure("x", [1.0, 1.0]) == {"x": 1.0, "x_se": 0.0}


@pytest.mark.parametrize("seed", range(5))
def test_clustered_error_against_the_sum_over_pairs(seed: int) -> None:
    """The reference sums the product of deviations over all pairs of values in one group."""
    rng = random.Random(seed)
    groups = [rng.randrange(12) for _ in range(60)]
    values = [rng.gauss(group, 1) for group in groups]
    mean = sum(values) / 60
    sum_over_pairs = sum(
        (values[i] - mean) * (values[j] - mean)
        for i in range(60)
        for j in range(60)
        if groups[i] == groups[j]
    )
    count = len(set(groups))
    found = mean_and_error(values, groups)
    assert found[0] == pytest.approx(mean)
    assert found[1] == pytest.approx(math.sqrt(sum_over_pairs * count / (count - 1)) / 60)


def test_a_group_of_equal_values_counts_as_one_value() -> None:
    assert mean_and_error([1, 1, 1, 3, 3, 3, 8, 8, 8], list("aaabbbccc")) == pytest.approx(
        mean_and_error([1, 3, 8])
    )


def test_one_group_has_no_error() -> None:
    assert mean_and_error([1.0, 2.0, 6.0], ["a"] * 3) == (3.0, None)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_makes_both_nan(value: float) -> None:
    assert all(map(math.isnan, mean_and_error([1.0, value, -value])))


@pytest.mark.parametrize(("count", "expected"), [(20, 1.5), (25, (1 + 2 + 0.5 * 3) / 2.5), (30, 2), (5, 1)])
def test_the_left_tail_is_exactly_a_tenth_of_the_values(count: int, expected: float) -> None:
    values = list(range(1, count + 1))
    random.Random(0).shuffle(values)
    assert left_tail(values)[0] == pytest.approx(expected)


def test_the_error_of_the_left_tail_is_that_of_repeated_samples() -> None:
    rng = random.Random(0)
    found = [left_tail([rng.random() for _ in range(400)]) for _ in range(300)]
    spread = statistics.stdev(mean for mean, _ in found)
    assert statistics.fmean(error for _, error in found) == pytest.approx(spread, rel=0.15)


def test_the_left_tail_is_clustered_by_group() -> None:
    values = [rng_value / 7 for rng_value in range(40)]
    twice = [value for value in values for _ in range(2)]
    groups = [place // 2 for place in range(80)]
    assert left_tail(twice, groups) == pytest.approx(left_tail(values))
    assert left_tail([]) == (None, None)
