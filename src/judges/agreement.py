"""Agreement of several raters on an ordinal scale: Gwet's AC2, which the paper reports (section 4.4)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence


def ac2(ratings: Sequence[Sequence[int]], categories: int) -> float | None:
    """Returns Gwet's AC2 with quadratic weights, for any number of raters and missing ratings.

    AC2 is (a - e) / (1 - e): a is the weighted agreement of pairs of raters, e that of independent raters.
    Ratings k and l agree by 1 - (k - l)² / (categories - 1)². See K. Gwet, *Handbook of Inter-Rater
    Reliability*, 4th edition (2014), chapters 3 to 5.

    Args:
        ratings: the ratings of each answer, whole numbers from 1 to `categories` (at least 2).

    Returns:
        At most 1; None if no answer has two ratings. Answers with one rating count in e only.
    """
    scale = range(1, categories + 1)
    rated = [Counter(row) for row in ratings if row]
    pairs = [row for row in rated if row.total() > 1]
    if not pairs:
        return None

    def weight(first: int, second: int) -> float:
        return 1 - (first - second) ** 2 / (categories - 1) ** 2

    def agreement(row: Counter[int]) -> float:
        others = {one: sum(weight(one, other) * row[other] for other in row) - 1 for one in row}
        return sum(row[one] * others[one] for one in row) / (row.total() * (row.total() - 1))

    observed = sum(map(agreement, pairs)) / len(pairs)
    shares = [sum(row[one] / row.total() for row in rated) / len(rated) for one in scale]
    weights = sum(weight(one, other) for one in scale for other in scale)
    expected = weights * sum(share * (1 - share) for share in shares) / (categories * (categories - 1))
    return (observed - expected) / (1 - expected)
