"""Early warning of reward hacking: the optimised reward rises while an independent judge's score falls."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ...console import say
from ...statistics import mean_and_error

WINDOW = 5  # iterations in each of the two windows that are compared
SIGNIFICANT = 2.0  # standard errors
REWARD, JUDGE_SCORE = "ppo/reward", "ppo/judge_score"


class EarlyWarning:
    """Warns once if the policy seems to exploit the reward models (section 3.4.1).

    The last five iterations are compared with the five before them. The warning is printed at the first
    iteration where the mean of `ppo/reward` has risen and that of `ppo/judge_score` has fallen, each by more
    than two standard errors of the difference (of the iterations' means). Nothing else depends on it.

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
        last = self._scores[-2 * WINDOW :]
        if self.iteration is not None or len(last) < 2 * WINDOW:
            return False
        reward, judge = (_change(series) for series in zip(*last, strict=True))
        if reward > SIGNIFICANT and judge < -SIGNIFICANT:
            self.iteration = iteration
            return True
        return False


def _change(series: Sequence[float]) -> float:
    """Difference of the means of the two halves, in its standard errors."""
    (before, before_error), (after, after_error) = (
        mean_and_error(half) for half in (series[:WINDOW], series[WINDOW:])
    )
    assert before is not None
    assert after is not None
    error = math.hypot(before_error or 0.0, after_error or 0.0)
    return (after - before) / max(error, 1e-12)  # no division by 0 if all values are equal
