"""Diagnostics of an iteration, computed by hand and on two ranks."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from llamita.errors import LlamitaError
from llamita.processes import rank
from llamita.rlhf.ppo.diagnostics import (
    MAX_SAMPLER_DEVIATION,
    advantage_metrics,
    check_sampler,
    sampler_metrics,
)
from llamita.rlhf.ppo.rollout import MicroBatch

from ...helpers.ppo_trainer import trainer
from ...helpers.two_ranks import on_two_ranks


def batch(mask: list[list[bool]], **columns: Tensor) -> MicroBatch:
    shape = torch.tensor(mask)
    names = ("sampled_logprobs", "old_logprobs", "ref_logprobs", "old_values", "advantages", "returns")
    values: dict[str, Any] = {name: torch.zeros(shape.shape) for name in names}
    ids = torch.zeros(len(mask), shape.shape[1] + 1, dtype=torch.long)
    places = shape.flatten().nonzero().squeeze(1)
    return MicroBatch(ids=ids, mask=shape, places=places, entropy=torch.zeros(()), **values | columns)


def halves() -> list[MicroBatch]:
    """Two answers of three tokens and one; the pad's values must not count."""
    return [
        batch(
            [[True, True, True]],
            sampled_logprobs=torch.tensor([[-1.0, -1.0, -1.0]]),
            old_logprobs=torch.tensor([[-1.1, -0.5, -1.0]]),
            advantages=torch.tensor([[1.0, 2.0, 3.0]]),
        ),
        batch(
            [[False, True, False]],
            sampled_logprobs=torch.tensor([[9.0, -2.0, 9.0]]),
            old_logprobs=torch.tensor([[0.0, -2.3, 0.0]]),
            advantages=torch.tensor([[50.0, 6.0, 50.0]]),
        ),
    ]


def check(sampler: dict[str, float], advantages: dict[str, float]) -> None:
    assert sampler["sampler_deviation"] == pytest.approx((0.1 + 0.5 + 0.0 + 0.3) / 4)
    assert sampler["sampler_deviation_p95"] == pytest.approx(0.3 + 0.85 * 0.2)
    # ratios exp(-0.1) = 0.905, exp(0.5) = 1.65, 1 and exp(-0.3) = 0.741: two are outside 0.8 to 1.2
    assert sampler["sampler_clip_fraction"] == 0.5
    assert advantages == {
        "advantage_mean": pytest.approx(3.0),
        "advantage_std": pytest.approx(math.sqrt((4 + 1 + 0 + 9) / 4)),
        "advantage_mean_safety_branch": pytest.approx(6.0),
        "advantage_std_safety_branch": pytest.approx(0.0),
        "advantage_mean_helpfulness_branch": pytest.approx(2.0),
        "advantage_std_helpfulness_branch": pytest.approx(math.sqrt(2 / 3)),
    }


BRANCHES = [torch.tensor([False]), torch.tensor([True])]


def test_by_hand() -> None:
    check(sampler_metrics(halves(), cliprange=0.2), advantage_metrics(halves(), BRANCHES))
    wide = sampler_metrics(halves(), cliprange=0.3)
    assert wide["sampler_clip_fraction"] == 0.25, "the band is the setting's"
    alone = advantage_metrics(halves()[:1], BRANCHES[:1])
    assert not [name for name in alone if "safety" in name], "a branch without answers is missing"


def test_two_ranks_share_the_answers(tmp_path: Path) -> None:
    def work() -> tuple[dict[str, float], dict[str, float]]:
        own = slice(rank(), rank() + 1)
        return (
            sampler_metrics(halves()[own], cliprange=0.2),
            advantage_metrics(halves()[own], BRANCHES[own]),
        )

    for found in on_two_ranks(work, tmp_path):
        check(*found)


@pytest.mark.parametrize(("dtype", "factor"), [("float32", 1.5), ("bfloat16", 30)])
def test_a_sampler_with_other_weights_stops_the_run_before_a_step(
    dtype: str, factor: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    for precision, limit in MAX_SAMPLER_DEVIATION.items():
        check_sampler(limit, precision)
        check_sampler(math.nan, precision)  # the check of the losses names its cause
        with pytest.raises(LlamitaError, match=rf"at most {limit} are allowed in {precision}: "):
            check_sampler(1.01 * limit, precision)
    ppo = trainer(critic_warmup_iterations=0, dtype=dtype)
    before = [weight.clone() for weight in ppo.policy.module.parameters()]
    sync = ppo._sampler.sync

    def broken(model: Any, version: int) -> None:
        sync(model, version)
        ppo._sampler._weights.head.mul_(factor)

    monkeypatch.setattr(ppo._sampler, "sync", broken)
    with pytest.raises(LlamitaError, match=rf"differ from the trainer's by \d.*are allowed in {dtype}"):
        ppo.iterate(1)
    pairs = zip(before, ppo.policy.module.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)
