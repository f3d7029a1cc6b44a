from __future__ import annotations

import math
import random

import pytest
import torch

from llamita.rlhf.ppo.reward import (
    kl_penalised_reward,
    last_answer_state,
    logit,
    whiten,
    whitened_reward,
)


def test_logit_inverts_the_sigmoid_and_stays_finite() -> None:
    raw = torch.tensor([-12.0, -0.3, 0.0, 5.0, 13.0], dtype=torch.float64)
    torch.testing.assert_close(logit(torch.sigmoid(raw)), raw)
    assert logit(torch.tensor([0.8])).item() == pytest.approx(math.log(0.8 / 0.2), rel=1e-6)
    assert logit(torch.tensor([0.0, 1.0], dtype=torch.float64)).abs().tolist() == pytest.approx([13.8155] * 2)


def test_whiten_against_plain_arithmetic() -> None:
    draw = random.Random(1)
    values = [[draw.gauss(3, 2) for _ in range(5)] for _ in range(4)]
    mask = [[draw.random() < 0.6 for _ in range(5)] for _ in range(4)]
    real = [v for row, keep in zip(values, mask, strict=True) for v, k in zip(row, keep, strict=True) if k]
    mean = sum(real) / len(real)
    deviation = math.sqrt(sum((v - mean) ** 2 for v in real) / len(real))
    found = whiten(torch.tensor(values), torch.tensor(mask)).tolist()
    for row, keep, out in zip(values, mask, found, strict=True):
        for value, kept, whitened in zip(row, keep, out, strict=True):
            assert whitened == pytest.approx((value - mean) / deviation if kept else 0.0, abs=1e-5)


def test_whiten_of_equal_values_is_zero() -> None:
    assert whiten(torch.full((3,), 0.1)).abs().max() < 1e-6


def test_whitened_reward() -> None:
    scores = [0.2, 0.5, 0.9]
    raw = [math.log(s / (1 - s)) for s in scores]
    mean = sum(raw) / 3
    deviation = math.sqrt(sum((r - mean) ** 2 for r in raw) / 3)
    found = whitened_reward(torch.tensor(scores, dtype=torch.float64))
    assert found.tolist() == pytest.approx([(r - mean) / deviation for r in raw])


def test_the_score_is_added_at_the_last_token_of_the_answer() -> None:
    mask = torch.tensor([[False, True, True, False], [False, False, True, True], [True, False, False, False]])
    assert last_answer_state(mask).tolist() == [2, 3, 0]
    new = torch.tensor([[9.0, -1.0, -2.0, 9.0], [9.0, 9.0, -0.5, -1.5], [-3.0, 9.0, 9.0, 9.0]])
    start = torch.tensor([[0.0, -1.5, -1.0, 0.0], [0.0, 0.0, -0.5, -2.5], [-1.0, 0.0, 0.0, 0.0]])
    new.requires_grad_()
    found = kl_penalised_reward(torch.tensor([1.0, -2.0, 3.0]), new, start, mask=mask, kl_coef=0.1)
    expected = [[0, -0.05, 0.1 + 1, 0], [0, 0, 0.0, -0.1 - 2], [0.2 + 3, 0, 0, 0]]
    torch.testing.assert_close(found, torch.tensor(expected))
    assert not found.requires_grad, "the penalty is a reward, not a loss"
