"""Confidence intervals of shares whose values may depend on each other."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence

from .statistics import mean_and_error

Z = 1.959963984540054  # of a two-sided 95% interval


def wilson(share: float, count: float) -> tuple[float, float]:
    """Returns Wilson's 95% interval of a share of `count` independent values (Wilson, 1927)."""
    square = Z * Z / count
    centre = (share + square / 2) / (1 + square)
    half = Z / (1 + square) * math.sqrt(share * (1 - share) / count + square / (4 * count))
    return 0.0 if share == 0 else centre - half, 1.0 if share == 1 else centre + half  # exactly


def effective_count(values: Sequence[float], groups: Sequence[Hashable]) -> float:
    """Returns the number of independent values that would give as wide an interval as these zeros and ones.

    It is their number over the design effect, the ratio of the clustered to the unclustered variance, but
    never more than their number. If all values are equal no variance can be measured: then it is the number
    of groups.
    """
    count = len(values)
    _, clustered = mean_and_error(values, groups)
    _, unclustered = mean_and_error(values)
    if not clustered or not unclustered:
        return len(set(groups))
    return count * min(1.0, (unclustered / clustered) ** 2)


def share_with_interval(
    values: Sequence[float], groups: Sequence[Hashable]
) -> tuple[float | None, float | None, float | None]:
    """Returns the share of ones and its 95% interval; values in one group may be dependent.

    Without values all are None.
    """
    if not values:
        return None, None, None
    share = math.fsum(values) / len(values)
    return share, *wilson(share, effective_count(values, groups))
