"""The losses of section 3.2.2 against plain Python, and their gradients."""

from __future__ import annotations

import math
import random

import pytest
import torch
from torch.autograd import gradcheck

from llamita.data.rows import RATINGS
from llamita.reward.loss import MARGINS, centring_loss, margin, ranking_loss, safety_loss

draw = random.Random(0)
CHOSEN, REJECTED = ([draw.gauss(0, 2) for _ in range(6)] for _ in range(2))
NAN = math.nan


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_margins_are_table_27():
    assert [margin(rating, "small") for rating in RATINGS] == [1, 2 / 3, 1 / 3, 0]
    assert [margin(rating, "large") for rating in RATINGS] == [3, 2, 1, 0]
    assert {margin(rating, "none") for rating in RATINGS} == {0}
    assert {margin(None, table) for table in MARGINS} == {0}


def test_ranking_loss_is_equation_2():
    margins = [margin(rating, "large") for rating in (*RATINGS, None, "better")]
    costs = [-math.log(sigmoid(c - r - m)) for c, r, m in zip(CHOSEN, REJECTED, margins, strict=True)]
    computed = ranking_loss(
        *(torch.tensor(column, dtype=torch.float64) for column in (CHOSEN, REJECTED, margins))
    )
    assert computed.item() == pytest.approx(sum(costs) / 6, rel=1e-12)


def test_ranking_loss_is_finite_for_any_scores():
    far = torch.tensor([1e4], dtype=torch.float32)
    assert ranking_loss(-far, far, torch.zeros(1)).item() == pytest.approx(2e4)
    assert ranking_loss(far, -far, torch.zeros(1)).item() == 0


def test_centring_loss_is_least_where_the_two_scores_lie_around_0():
    assert centring_loss(torch.tensor([3.0, 1.0]), torch.tensor([-3.0, 1.0])).item() == 2.0  # (0 + 2^2) / 2


def test_safety_loss_is_cross_entropy_over_the_labelled_answers():
    safe = [1.0, 0.0, NAN, 1.0, NAN, 0.0]
    costs = [
        -math.log(sigmoid(score) if label else 1 - sigmoid(score))
        for score, label in zip(CHOSEN, safe, strict=True)
        if not math.isnan(label)
    ]
    computed = safety_loss(torch.tensor(CHOSEN, dtype=torch.float64), torch.tensor(safe, dtype=torch.float64))
    assert computed.item() == pytest.approx(sum(costs) / 4, rel=1e-12)
    assert safety_loss(torch.tensor(CHOSEN), torch.full((6,), NAN)).item() == 0


def test_gradients():
    chosen, rejected = (
        torch.tensor(column, dtype=torch.float64, requires_grad=True) for column in (CHOSEN, REJECTED)
    )
    margins = torch.tensor([1, 0.5, 0, 0, 2, 3], dtype=torch.float64)
    safe = torch.tensor([1.0, 0.0, NAN, 1.0, NAN, 0.0], dtype=torch.float64)
    assert gradcheck(lambda c, r: ranking_loss(c, r, margins), (chosen, rejected))
    assert gradcheck(lambda scores: safety_loss(scores, safe), (chosen,))
    safety_loss(chosen, safe).backward()
    assert chosen.grad is not None
    assert chosen.grad[2] == 0  # unknown answers pull at nothing
