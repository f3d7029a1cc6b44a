"""Early warning of reward hacking: the optimised reward rises while an independent judge's score falls."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from statistics import fmean
from typing import Any

from ...console import say

WINDOW = 5  # iterations in each of the two windows that are compared
RISE, FALL = 2.0, 4.0  # of the reward and of the judge's score, in standard errors
REWARD, JUDGE_SCORE = "ppo/reward", "ppo/judge_score"


class EarlyWarning:
    """Warns once if the policy seems to exploit the reward models (section 3.4.1).

    The last five iterations are compared with the five before them. The warning is printed at the first
    iteration where the mean of `ppo/reward` has risen by more than two and that of `ppo/judge_score` has
    fallen by more than four standard errors of the difference. Nothing else depends on it.

    The reward rises most of the time and every iteration is tested, so only the judge's threshold limits
    false warnings: with two standard errors nearly every run of 300 iterations with a constant judge would
    warn, with four less than 2% do.

    Args:
        rows: metrics of the iterations before a resumed run, with `step`; they cause no second warning.

    Attributes:
        iteration: iteration of the warning; None if there was none.
    """

    def __init__(self, rows: Iterable[Mapping[str, Any]] = ()) -> None:
        self.iteration: int | None = None
        self._scores: list[tuple[float, float]] = []
        for row in rows:
            self._add(row, row["step"])

    def check(self, metrics: Mapping[str, Any], iteration: int) -> None:
        """Adds the metrics of an iteration; prints the warning if it is due."""
        if self._add(metrics, iteration):
            say(
                f"warning: over the last {2 * WINDOW} iterations of PPO the reward rose while the judge's "
                "score fell; the policy may be exploiting the reward models. Compare ppo/judge_score with "
                "ppo/reward in metrics.jsonl; fewer iterations or a higher kl_coef keep the policy closer to "
                "its start"
            )

    def _add(self, metrics: Mapping[str, Any], iteration: int) -> bool:
        """Whether the warning is due at this iteration."""
        if JUDGE_SCORE not in metrics:
            return False
        self._scores.append((metrics[REWARD], metrics[JUDGE_SCORE]))
        if self.iteration is not None or len(self._scores) < 2 * WINDOW:
            return False
        reward, judge = (_change(series) for series in zip(*self._scores, strict=True))
        if reward > RISE and judge < -FALL:
            self.iteration = iteration
            return True
        return False


def _change(series: Sequence[float]) -> float:
    """Mean of the last window minus that of the one before, in standard errors.

    The error is that of independent iterations, whose standard deviation follows from the differences of all
    successive ones (von Neumann, 1941): unlike the spread within a window, it contains no trend.
    """
    variance = fmean((after - before) ** 2 for before, after in pairwise(series)) / 2
    error = math.sqrt(variance * 2 / WINDOW)
    change = fmean(series[-WINDOW:]) - fmean(series[-2 * WINDOW : -WINDOW])
    return change / max(error, 1e-12)  # no division by 0 if all values are equal
