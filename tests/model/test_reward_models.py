"""Combined scores of both reward models."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from llamita.model.reward_models import RewardModels, piecewise_reward, safety_branch

Ids = Sequence[Sequence[int]]


def test_piecewise_reward_by_hand() -> None:
    rows = [  # safety, helpfulness, is_safety -> reward
        (0.90, 0.30, False, 0.30),
        (0.90, 0.30, True, 0.90),
        (0.14, 0.80, False, 0.14),
        (0.15, 0.80, False, 0.80),
        (0.14, 0.80, True, 0.14),
    ]
    safety, helpfulness, is_safety, expected = (
        torch.tensor(column, dtype=torch.bool if isinstance(column[0], bool) else torch.float64)
        for column in zip(*rows, strict=True)
    )
    assert piecewise_reward(safety, helpfulness, is_safety).tolist() == expected.tolist()
    assert piecewise_reward(safety, helpfulness, is_safety, threshold=0.95)[0] == 0.9
    by_safety = safety_branch(safety, is_safety, threshold=0.15)
    assert by_safety.tolist() == [False, True, True, False, True]


def test_both_models_score_all_answers_and_the_threshold_is_used() -> None:
    calls = []

    def scores(name: str, values: list[float]) -> object:
        def score(prompts: Ids, answers: Ids, label: str | None) -> Tensor:
            calls.append((name, prompts, answers, label))
            return torch.tensor(values, dtype=torch.float64)

        return score

    models = RewardModels(
        helpfulness=scores("helpfulness", [0.3, 0.4]),
        safety=scores("safety", [0.5, 0.7]),
        safety_threshold=0.6,
    )
    judged = models.score_answers([[1], [2]], [[3], [4]], [False, False], label="v1")
    assert judged.score.tolist() == [0.5, 0.4]
    assert (judged.safety.tolist(), judged.helpfulness.tolist()) == ([0.5, 0.7], [0.3, 0.4])
    assert calls == [
        ("safety", [[1], [2]], [[3], [4]], "v1: safety scores"),
        ("helpfulness", [[1], [2]], [[3], [4]], "v1: helpfulness scores"),
    ]
    assert models.score_answers([[1], [2]], [[3], [4]], [False, True]).score.tolist() == [0.5, 0.7]
    assert calls[-1][-1] is None
