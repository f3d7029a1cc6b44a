"""The project's one definition of a standard error: means of values that may come in groups."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Hashable, Sequence


def mean_and_error(
    values: Sequence[float], groups: Sequence[Hashable] | None = None
) -> tuple[float | None, float | None]:
    """Mean and its standard error, clustered by group.

    With G groups and n values: sqrt(G / (G - 1) * S) / n, where S is the sum over groups of the square of
    the sum of their deviations from the mean.
    Values of one group (answers to one prompt) may depend on each other, groups may not. Where every value
    is a group of its own, the default, this is the sample deviation (n - 1) over the square root of n.

    A rate is the mean of zeros and ones. No values: (None, None); one group: (mean, None), its error cannot
    be known. A value that is NaN or infinite makes both NaN.
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
    squares = math.fsum(math.fsum(found) ** 2 for found in deviations.values())
    return mean, math.sqrt(squares * clusters / (clusters - 1)) / count


def measure(
    name: str, values: Sequence[float], groups: Sequence[Hashable] | None = None
) -> dict[str, float | None]:
    """`{name: mean, name_se: standard error}`, as every figure of the report is written."""
    mean, error = mean_and_error(values, groups)
    return {name: mean, f"{name}_se": error}
