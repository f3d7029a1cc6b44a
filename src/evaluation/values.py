"""From what is measured of each answer to the figures of a version, and to differences between versions."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence

from ..measures import DIFFERENCES, with_errors
from ..statistics import measure

Column = Sequence[float | None]
Values = Mapping[str, Column]
"""Measure -> one value for each answer, in the order of the prompts; None where it does not apply."""
Figures = dict[str, float | None]


def finite(values: Values) -> tuple[dict[str, Column], dict[str, int]]:
    """The measures whose values are all finite, and how many values of the others are NaN or infinite."""
    broken = {
        name: sum(value is not None and not math.isfinite(value) for value in column)
        for name, column in values.items()
    }
    kept = {name: column for name, column in values.items() if not broken[name]}
    return kept, {name: count for name, count in broken.items() if count}


def figures(values: Values, groups: Sequence[Hashable]) -> Figures:
    """Mean and standard error of each measure; values of one group (one prompt) may depend on each other."""
    found: Figures = {}
    for name, column in values.items():
        known = [(value, group) for value, group in zip(column, groups, strict=True) if value is not None]
        found |= measure(name, [value for value, _ in known], [group for _, group in known])
    return found


def differences(versions: Mapping[str, Values], groups: Sequence[Hashable]) -> dict[str, dict[str, Figures]]:
    """Each version less the one before it, and less the first one: `{version: {other: figures}}`.

    Versions answer the same prompts with the same draws, so what they share cancels: the error is that of the
    mean difference prompt by prompt. Measures that one of the two lacks are null.
    """
    names = list(versions)
    return {
        name: {
            other: with_errors(DIFFERENCES)
            | figures(less(versions[name], versions[other], DIFFERENCES), groups)
            for other in dict.fromkeys((names[place], names[0]))
        }
        for place, name in enumerate(names[1:])
    }


def less(ours: Values, theirs: Values, names: Iterable[str]) -> Values:
    """Value less value, of the measures that both have, where both have one."""
    return {
        name: [
            None if one is None or other is None else one - other
            for one, other in zip(ours[name], theirs[name], strict=True)
        ]
        for name in names
        if name in ours and name in theirs
    }
