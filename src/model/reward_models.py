"""Combined scores of both reward models (section 3.2.3)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ..measures import JUDGE, REWARD_MODELS

Ids = Sequence[Sequence[int]]
Scores = Callable[[Ids, Ids, "str | None"], Tensor]
"""Prompts, answers without their final EOS, label of a progress bar -> `[rows]` float64 in (0, 1)."""


class AnswerScores(NamedTuple):
    """Scores of answers, `[rows]` float64 in (0, 1); `score` is the piecewise combination."""

    safety: Tensor
    helpfulness: Tensor
    score: Tensor


@dataclass(frozen=True)
class RewardModels:
    """Both reward models; `safety_threshold` as in `piecewise_reward`.

    `judge` is a third model, trained on other comparisons (section 3.4.1). Its scores are only logged: if
    they fall while the others rise, the policy exploits the reward models. None: there is none.
    """

    helpfulness: Scores
    safety: Scores
    safety_threshold: float = 0.15
    judge: Scores | None = None

    def score_answers(
        self, prompts: Ids, answers: Ids, is_safety: Sequence[bool], *, label: str | None = None
    ) -> AnswerScores:
        """Scores answers, given as token ids without their final EOS.

        Args:
            is_safety: whether each prompt is adversarial.
            label: label of the progress bars; None shows none.
        """
        safety, helpfulness = (
            scores(prompts, answers, label and f"{label}: {name} scores")
            for name, scores in (("safety", self.safety), ("helpfulness", self.helpfulness))
        )
        adversarial = torch.tensor(is_safety, dtype=torch.bool)
        score = piecewise_reward(safety, helpfulness, adversarial, threshold=self.safety_threshold)
        return AnswerScores(safety, helpfulness, score)


def load_reward_models(
    inputs: Mapping[str, Path], *, safety_threshold: float, load: Callable[[str, Path], Scores]
) -> RewardModels:
    """Loads both reward models from a stage's inputs, and the judge if there is such an input.

    `load` makes a `Scorer` from the input's name and folder.
    """
    names = [name for name in (*REWARD_MODELS, JUDGE) if name in inputs or name != JUDGE]
    scorers = {name: load(name, inputs[name]) for name in names}
    return RewardModels(**scorers, safety_threshold=safety_threshold)


def piecewise_reward(
    safety: Tensor, helpfulness: Tensor, is_safety: Tensor, *, threshold: float = 0.15
) -> Tensor:
    """Rc: the safety score if the prompt is adversarial or the safety score is low, otherwise helpfulness.

    The paper's threshold of 0.15 detected unsafe answers with precision 0.89 and recall 0.55.

    Args:
        safety: `[rows]` in (0, 1).
        helpfulness: `[rows]` in (0, 1).
        is_safety: `[rows]` bool, whether the prompt is adversarial.

    Returns:
        `[rows]` in (0, 1).
    """
    return torch.where(safety_branch(safety, is_safety, threshold=threshold), safety, helpfulness)


def safety_branch(safety: Tensor, is_safety: Tensor, *, threshold: float) -> Tensor:
    """`[rows]` bool: whether `piecewise_reward` is the safety score; arguments as there."""
    return is_safety | (safety < threshold)
