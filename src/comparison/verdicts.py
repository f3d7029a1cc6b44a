"""Verdicts of raters on pairs of answers, and the shares of wins, ties and losses."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from itertools import combinations
from typing import Any

from ..intervals import share_with_interval
from ..judges.agreement import ac2
from ..statistics import measure

WIN, TIE, LOSS = 1, 0, -1
OUTCOMES = {"win": WIN, "tie": TIE, "loss": LOSS}
NAMES = {verdict: name for name, verdict in OUTCOMES.items()}
CATEGORIES = len(OUTCOMES)  # of the ordinal scale loss, tie, win
Verdicts = Mapping[int, int | None]
"""Index of a pair -> the verdict on its first answer, None if the rater could not decide. A rater rates only
the pairs that are keys."""


def by_scores(
    first: Sequence[float | None], second: Sequence[float | None], *, margin: float = 0.0
) -> Verdicts:
    """Returns the verdicts of a scorer: scores that differ by at most `margin` are a tie.

    Pairs in which an answer has no score (None) are not rated.
    """
    return {
        index: TIE if abs(ours - theirs) <= margin else WIN if ours > theirs else LOSS
        for index, (ours, theirs) in enumerate(zip(first, second, strict=True))
        if ours is not None and theirs is not None
    }


def compare(
    raters: Mapping[str, Verdicts], kinds: Sequence[str], groups: Sequence[Hashable]
) -> dict[str, dict[str, Any]]:
    """Returns shares and agreement of the raters by kind of prompt: `{kind: {"raters", "agreement"}}`.

    Args:
        raters: verdicts by rater.
        kinds: kind of each pair's prompt, such as "ordinary".
        groups: pairs in one group may be dependent, see `mean_and_error`.

    Returns:
        Only kinds of which a rater rates pairs, and only the raters that do.
    """
    found: dict[str, dict[str, Any]] = {}
    for kind in dict.fromkeys(kinds):
        rated = {
            name: part
            for name, verdicts in raters.items()
            if (part := {index: verdict for index, verdict in verdicts.items() if kinds[index] == kind})
        }
        if rated:
            found[kind] = {
                "raters": {name: shares(verdicts, groups) for name, verdicts in rated.items()},
                "agreement": agreement(rated),
            }
    return found


def shares(verdicts: Verdicts, groups: Sequence[Hashable]) -> dict[str, Any]:
    """Returns the shares of wins, ties and losses with 95% intervals (Wilson's, clustered by group).

    Returns:
        `win`, `win_low`, `win_high` and so on; `net`, wins minus losses, with its standard error; `pairs` and
        `prompts`, the numbers of decided pairs and of their groups; `undecided`, the number of other pairs.
    """
    decided = [(verdict, groups[index]) for index, verdict in verdicts.items() if verdict is not None]
    own_groups = [group for _, group in decided]
    result: dict[str, Any] = {}
    for name, outcome in OUTCOMES.items():
        values = [float(verdict == outcome) for verdict, _ in decided]
        share, low, high = share_with_interval(values, own_groups)
        result |= {name: share, f"{name}_low": low, f"{name}_high": high}
    return {
        **result,
        **measure("net", [float(verdict) for verdict, _ in decided], own_groups),
        "pairs": len(decided),
        "prompts": len(set(own_groups)),
        "undecided": len(verdicts) - len(decided),
    }


def agreement(raters: Mapping[str, Verdicts]) -> dict[str, Any]:
    """Returns Gwet's AC2 of the raters on the ordinal scale loss, tie, win, with quadratic weights.

    Returns:
        `ac2` (null with fewer than two raters), `pairs` that at least two raters decided, and `between`: the
        AC2 of each two raters, `{rater: {rater: AC2}}`.
    """
    rows = _ratings(raters)
    between: dict[str, dict[str, float | None]] = {}
    for first, second in combinations(raters, 2):
        both = _ratings({name: raters[name] for name in (first, second)})
        between.setdefault(first, {})[second] = ac2(both, CATEGORIES)
    return {"ac2": ac2(rows, CATEGORIES), "pairs": sum(len(row) > 1 for row in rows), "between": between}


def _ratings(raters: Mapping[str, Verdicts]) -> list[list[int]]:
    """Returns the ratings of each pair from 1 (loss) to 3 (win), of the raters that decided."""
    indices = sorted({index for verdicts in raters.values() for index in verdicts})
    found = ([verdicts.get(index) for verdicts in raters.values()] for index in indices)
    return [[verdict + 2 for verdict in row if verdict is not None] for row in found]
