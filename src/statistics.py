"""Means and their standard errors, clustered by group; the whole project uses this definition."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Hashable, Sequence


def mean_and_error(
    values: Sequence[float], groups: Sequence[Hashable] | None = None
) -> tuple[float | None, float | None]:
    """Returns the mean and its standard error, clustered by group.

    With G groups and n values the error is sqrt(G / (G - 1) * S) / n. S is the sum over groups of the squared
    sum of the group's deviations from the mean. Values in one group (answers to one prompt) may be dependent;
    groups must be independent. By default every value is its own group: then the error is the sample standard
    deviation (n - 1) divided by the square root of n.

    A rate is the mean of zeros and ones. Without values the result is (None, None); with one group the error
    is None. NaN or infinite values make both NaN.
    """
    if not values:
        return None, None
    if not all(map(math.isfinite, values)):
        return math.nan, math.nan
    count = len(values)
    mean = math.fsum(values) / count
    deviations: dict[Hashable, list[float]] = defaultdict(list)
    for value, group in zip(values, range(count) if groups is None else groups, strict=True):
        deviations[group].append(value - mean)
    clusters = len(deviations)
    if clusters == 1:
        return mean, None
    squares = math.fsum(math.fsum(group) ** 2 for group in deviations.values())
    return mean, math.sqrt(squares * clusters / (clusters - 1)) / count


def measure(
    name: str, values: Sequence[float], groups: Sequence[Hashable] | None = None
) -> dict[str, float | None]:
    """Returns `{name: mean, name_se: standard error}`, the form of every figure in the report."""
    mean, error = mean_and_error(values, groups)
    return {name: mean, f"{name}_se": error}


def left_tail(
    values: Sequence[float], groups: Sequence[Hashable] | None = None, *, share: float = 0.1
) -> tuple[float | None, float | None]:
    """Returns the mean of the lowest `share` of the values and its standard error, clustered by group.

    The share is exact: with 25 values the lowest tenth is two values and half of the third. The mean equals
    that of `q - max(q - value, 0) / share` over all values, where q is the largest value in the tail; the
    error is that of this mean, to first order that of the tail's mean. Without values: (None, None).
    """
    if not values:
        return None, None
    largest = sorted(values)[math.ceil(share * len(values)) - 1]
    return mean_and_error([largest - max(largest - value, 0.0) / share for value in values], groups)
