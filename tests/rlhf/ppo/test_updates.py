"""Metrics of optimizer steps over all ranks."""

from __future__ import annotations

import math
import os
from pathlib import Path

import torch

from llamita.rlhf.ppo.metrics import Metrics
from llamita.rlhf.ppo.updates import over_ranks

from ...helpers.two_ranks import on_two_ranks


def test_sums_largest_and_common_metrics_of_two_ranks(tmp_path: Path) -> None:
    def on_a_rank() -> list[Metrics]:
        rank = int(os.environ["RANK"])
        steps = [
            {
                "policy_loss": torch.tensor(1.5 + rank + step),
                "ratio_deviation": torch.tensor(0.25 * (1 - rank) + step),
                "policy_gradient_norm": torch.tensor(3.0 + step, dtype=torch.float64),
            }
            for step in range(2)
        ]
        return over_ranks(steps)

    expected = [
        {"policy_loss": 4.0 + 2 * step, "ratio_deviation": 0.25 + step, "policy_gradient_norm": 3.0 + step}
        for step in range(2)
    ]
    assert on_two_ranks(on_a_rank, tmp_path) == [expected, expected]


def test_a_nan_stays_one() -> None:
    nan = torch.tensor(math.nan)
    (metrics,) = over_ranks([{"value_loss": nan, "critic_gradient_norm": nan, "approx_kl": torch.ones(())}])
    assert math.isnan(metrics["value_loss"])
    assert math.isnan(metrics["critic_gradient_norm"])
    assert metrics["approx_kl"] == 1
