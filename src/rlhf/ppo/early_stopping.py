"""Early stopping of PPO on held-out prompts (section 3.2.3): when to stop, and which version is the best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from statistics import fmean
from typing import Any, Literal

from ...statistics import mean_and_error
from .held_out import Evaluation

Reason = Literal["reward", "kl"]


@dataclass
class EarlyStopping:
    """Decides after each evaluation; the same on every rank, because the evaluations are.

    A version is the best one if its mean reward exceeds that of the best one before it by more than the
    standard error of the mean paired difference, prompt by prompt. Within the error the earlier version stays
    the best: it is closer to the start model. Training stops after `patience` evaluations in a row without a
    new best version, or as soon as a version's KL to the start model exceeds `kl_limit`; such a version is
    never the best.

    Attributes:
        patience, kl_limit: see `PpoSettings`.
        best: iteration of the best version; None before the first evaluation.
        reason: why training stops; None: it continues.
    """

    patience: int
    kl_limit: float | None = None
    best: int | None = None
    reason: Reason | None = None
    _best_rewards: list[float] = field(default_factory=list)
    _first_rewards: list[float] = field(default_factory=list)
    _without_improvement: int = 0

    def add(self, iteration: int, evaluation: Evaluation) -> dict[str, float]:
        """Adds the evaluation of the version after an iteration (0: the start model).

        Returns its metrics, by the names of `metrics.jsonl`, with the mean paired difference to the first
        evaluation and its standard error.
        """
        rewards = evaluation.rewards
        self._first_rewards = self._first_rewards or rewards
        if self.kl_limit is not None and evaluation.kl > self.kl_limit:
            self.reason = "kl"
        elif self.best is None or _improved(rewards, self._best_rewards):
            self.best, self._best_rewards, self._without_improvement = iteration, rewards, 0
        else:
            self._without_improvement += 1
            if self._without_improvement >= self.patience:
                self.reason = "reward"
        difference, error = _paired(rewards, self._first_rewards)
        return evaluation.metrics() | {
            "eval/reward_difference": difference,
            "eval/reward_difference_se": error,
        }

    def summary(self) -> dict[str, Any]:
        """Reason to stop, iteration of the best version, its mean reward and difference to the first one.

        The last four are None if no version could be stored.
        """
        best: dict[str, Any] = dict.fromkeys(("reward", "reward_difference", "reward_difference_se"))
        if self.best is not None:
            difference, error = _paired(self._best_rewards, self._first_rewards)
            best = {
                "reward": fmean(self._best_rewards),
                "reward_difference": difference,
                "reward_difference_se": error,
            }
        return {"stopped_by": self.reason, "best_iteration": self.best, **best}

    def state(self) -> dict[str, Any]:
        """Everything but the settings, as JSON."""
        return {key: value for key, value in asdict(self).items() if key not in _SETTINGS}

    def load(self, state: dict[str, Any]) -> None:
        """Restores what `state` returned."""
        for key, value in state.items():
            setattr(self, key, value)

    def forget_best(self) -> None:
        """Makes the next evaluation the best one: the model of the best one is lost."""
        self.best, self._best_rewards, self._without_improvement = None, [], 0


_SETTINGS = ("patience", "kl_limit")


def _improved(rewards: Sequence[float], best: Sequence[float]) -> bool:
    difference, error = _paired(rewards, best)
    return difference > error


def _paired(rewards: Sequence[float], others: Sequence[float]) -> tuple[float, float]:
    """Mean of the differences by prompt, and its standard error; there are at least two prompts."""
    mean, error = mean_and_error([one - other for one, other in zip(rewards, others, strict=True)])
    assert mean is not None
    return mean, error or 0.0
