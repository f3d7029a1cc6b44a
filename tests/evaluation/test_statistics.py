"""Means and standard errors against the standard library."""

from __future__ import annotations

import random
import statistics

import pytest

from llamita.evaluation.statistics import mean_and_error, measure


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
