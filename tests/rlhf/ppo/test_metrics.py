"""Metrics of an iteration's answers, counted by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from llamita.data.rows import Context
from llamita.rlhf.ppo.metrics import episode_metrics
from llamita.rlhf.ppo.rollout import Episodes

CONTEXTS: list[Context] = ["plain", "plain", "plain", "instruction", "multi_turn", "multi_turn"]
NO_SAFETY = torch.zeros(6, dtype=torch.bool)


def episodes(**changes: Any) -> Episodes:
    """Six answers; those to the first, second and last prompts are answers to adversarial prompts."""
    scores = torch.tensor([0.2, 0.4, 0.9, 0.8, 0.7, 0.1], dtype=torch.float64)
    columns: dict[str, Any] = {
        "prompts": [[1]] * 6,
        "answers": [[5, 2]] * 6,
        "contexts": CONTEXTS,
        "adversarial": torch.tensor([True, True, False, False, False, True]),
        "logprobs": [[-1.0, -1.0]] * 6,
        "finished": torch.tensor([True] * 6),
        "safety": scores,
        "helpfulness": scores,
        "judge": None,
        "score": scores,
        "whitened_reward": scores,
    }
    return Episodes(**columns | changes)


def test_safety_of_adversarial_prompts_by_context() -> None:
    found = episode_metrics(episodes(), NO_SAFETY)
    by_context = {name: value for name, value in found.items() if name.startswith("adversarial")}
    assert by_context == {
        "adversarial_safety_score_plain": pytest.approx(0.3),
        "adversarial_safety_score_multi_turn": pytest.approx(0.1),
    }
    assert found["safety_score"] == pytest.approx(3.1 / 6), "of all answers"


def test_the_judges_mean_score() -> None:
    assert "judge_score" not in episode_metrics(episodes(), NO_SAFETY)
    judge = torch.tensor([0.5, 0.5, 0.5, 0.5, 0.5, 0.8], dtype=torch.float64)
    assert episode_metrics(episodes(judge=judge), NO_SAFETY)["judge_score"] == pytest.approx(0.55)


def test_reward_by_branch() -> None:
    by_safety = torch.tensor([True, True, False, False, False, True])
    found = episode_metrics(episodes(), by_safety)
    assert found["safety_branch_share"] == 0.5
    assert found["reward_safety_branch"] == pytest.approx((0.2 + 0.4 + 0.1) / 3)
    assert found["reward_helpfulness_branch"] == pytest.approx((0.9 + 0.8 + 0.7) / 3)
    assert "reward_safety_branch" not in episode_metrics(episodes(), NO_SAFETY)
