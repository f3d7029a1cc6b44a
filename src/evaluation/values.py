"""Figures of versions and paired differences between versions, computed from one value per answer."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence

from ..measures import DIFFERENCES, with_errors
from ..statistics import measure

Column = Sequence[float | None]
Values = Mapping[str, Column]
"""Measure -> one value per answer, in the order of the prompts; None where the measure does not apply."""
Figures = dict[str, float | None]


def drop_not_finite(values: Values) -> tuple[dict[str, Column], dict[str, int]]:
    """Returns the measures with finite values only, and the number of other values of those it dropped."""
    counts = {
        name: sum(value is not None and not math.isfinite(value) for value in column)
        for name, column in values.items()
    }
    finite = {name: column for name, column in values.items() if not counts[name]}
    return finite, {name: count for name, count in counts.items() if count}


def figures(values: Values, groups: Sequence[Hashable]) -> Figures:
    """Returns mean and standard error of each measure; values in one group (one prompt) may be dependent."""
    result: Figures = {}
    for name, column in values.items():
        pairs = [(value, group) for value, group in zip(column, groups, strict=True) if value is not None]
        result |= measure(name, [value for value, _ in pairs], [group for _, group in pairs])
    return result


def differences(versions: Mapping[str, Values], groups: Sequence[Hashable]) -> dict[str, dict[str, Figures]]:
    """Compares each version to the version before it and to the first one: `{version: {other: figures}}`.

    Versions answer the same prompts with the same draws, so variation that they share cancels: the standard
    error is that of the mean of the prompt-wise differences. Measures that one of the two lacks are null.
    """
    return {
        name: {other: difference(versions[name], versions[other], groups) for other in others}
        for name, others in compared_versions(list(versions)).items()
    }


def compared_versions(names: Sequence[str]) -> dict[str, list[str]]:
    """Returns for each version but the first those it is compared with: the one before it and the first."""
    return {name: list(dict.fromkeys((names[place], names[0]))) for place, name in enumerate(names[1:])}


def difference(first: Values, second: Values, groups: Sequence[Hashable]) -> Figures:
    """Returns the figures of `first - second` for all measures that are compared; null without values."""
    return with_errors(DIFFERENCES) | figures(subtract(first, second, DIFFERENCES), groups)


def subtract(first: Values, second: Values, names: Iterable[str]) -> Values:
    """Returns `first - second` answer by answer, for measures and answers that have values in both."""
    return {
        name: [
            None if ours is None or theirs is None else ours - theirs
            for ours, theirs in zip(first[name], second[name], strict=True)
        ]
        for name in names
        if name in first and name in second
    }
