"""What many rows begin with, such as worked examples, can be processed once instead of for each row."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

# Fewest tokens of a common beginning that are worth a forward pass of their own.
SHORTEST_SHARED = 64


class Cluster(NamedTuple):
    """Rows with a common beginning of `shared` tokens."""

    shared: int
    rows: list[int]


def clusters(
    rows: Sequence[Sequence[int]], lengths: Sequence[int], least: int = SHORTEST_SHARED
) -> list[Cluster]:
    """Groups rows so that what the rows of a group begin with can be processed once.

    In lexicographic order, each row joins the group of the row before it, unless the group's beginning would
    become shorter by `least` tokens, or the row has `least` tokens more in common with the row after it.

    Args:
        rows: token ids.
        lengths: number of first tokens of each row that may be shared.
        least: number of shared tokens that is worth a group of its own; a shorter beginning counts as none.
    """
    order = sorted(range(len(rows)), key=lambda row: list(rows[row]))
    common = [0, *(common_length(rows[first], rows[second]) for first, second in pairwise(order)), 0]
    result: list[Cluster] = []
    for place, row in enumerate(order):
        if result:
            shared = min(result[-1].shared, common[place], lengths[row])
            shortens = len(result[-1].rows) > 1 and result[-1].shared - shared >= least
            if not shortens and common[place + 1] - common[place] < least:
                result[-1] = Cluster(shared, [*result[-1].rows, row])
                continue
        result.append(Cluster(lengths[row], [row]))
    return [
        Cluster(found.shared if len(found.rows) > 1 and found.shared >= least else 0, sorted(found.rows))
        for found in result
    ]


def common_length(first: Sequence[int], second: Sequence[int]) -> int:
    """Number of equal elements at the beginning of both."""
    shortest = min(len(first), len(second))
    return next((place for place in range(shortest) if first[place] != second[place]), shortest)
