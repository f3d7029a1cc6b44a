"""Means with their standard errors."""

from __future__ import annotations

import math
from collections.abc import Sequence


def mean_and_error(values: Sequence[float]) -> tuple[float | None, float | None]:
    """Mean and standard error of the mean (sample deviation, n - 1, over the square root of n).

    A rate is the mean of zeros and ones. No values: (None, None); one value has no error: (value, None).
    """
    if not values:
        return None, None
    count = len(values)
    mean = math.fsum(values) / count
    if count == 1:
        return mean, None
    variance = math.fsum((value - mean) ** 2 for value in values) / (count - 1)
    return mean, math.sqrt(variance / count)


def measure(name: str, values: Sequence[float]) -> dict[str, float | None]:
    """`{name: mean, name_se: standard error}`, as every figure of `evaluation.json` is written."""
    mean, error = mean_and_error(values)
    return {name: mean, f"{name}_se": error}
