"""The functions of PPO against plain-Python loops, and the gradients of its losses."""

from __future__ import annotations

import math
import random

import pytest
import torch
from torch import Tensor

from llamita.rlhf.ppo import losses

ROWS, TIME = 3, 6
SPANS = [(1, 5), (3, 6), (0, 1)]  # states of each answer


def table(seed: int, spread: float = 1.0) -> Tensor:
    draw = random.Random(seed)
    numbers = [[draw.gauss(0, spread) for _ in range(TIME)] for _ in range(ROWS)]
    return torch.tensor(numbers, dtype=torch.float64)


@pytest.fixture
def mask() -> Tensor:
    return torch.tensor([[start <= time < end for time in range(TIME)] for start, end in SPANS])


def cells() -> list[tuple[int, int]]:
    return [(row, time) for row, (start, end) in enumerate(SPANS) for time in range(start, end)]


def test_log_ratio_is_clamped_and_masked(mask: Tensor) -> None:
    new, old = table(1, 30), table(2, 30)
    found = losses.log_ratio(new, old, mask)
    for row in range(ROWS):
        for time in range(TIME):
            plain = max(-20.0, min(20.0, float(new[row, time] - old[row, time])))
            assert found[row, time] == (plain if (row, time) in cells() else 0.0)
    assert found.abs().max() == 20


def test_policy_loss(mask: Tensor) -> None:
    new, old, advantages = table(1, 0.3), table(2, 0.3), table(3)
    total = 0.0
    for row, time in cells():
        ratio = math.exp(new[row, time] - old[row, time])
        clipped = max(0.8, min(1.2, ratio))
        advantage = float(advantages[row, time])
        total -= min(ratio * advantage, clipped * advantage)
    assert losses.policy_loss(
        new, old, advantages, mask=mask, tokens=17, cliprange=0.2
    ).item() == pytest.approx(total / 17)


def test_policy_loss_by_hand() -> None:
    def loss(ratio: float, advantage: float) -> float:
        new = torch.tensor([[math.log(ratio)]], dtype=torch.float64)
        zero, real = torch.zeros(1, 1, dtype=torch.float64), torch.ones(1, 1, dtype=torch.bool)
        return losses.policy_loss(new, zero, torch.full((1, 1), advantage), mask=real, tokens=1).item()

    assert loss(1.5, 2.0) == pytest.approx(-2.4)  # no more gain beyond 1.2
    assert loss(0.5, 2.0) == pytest.approx(-1.0)
    assert loss(0.5, -2.0) == pytest.approx(1.6)  # no more gain below 0.8
    assert loss(1.5, -2.0) == pytest.approx(3.0)


def test_value_loss(mask: Tensor) -> None:
    values, old, returns = table(4, 0.3), table(5, 0.3), table(6)
    clipped_total = plain_total = 0.0
    for row, time in cells():
        value, before, target = (float(t[row, time]) for t in (values, old, returns))
        near = before + max(-0.2, min(0.2, value - before))
        clipped_total += 0.5 * max((value - target) ** 2, (near - target) ** 2)
        plain_total += 0.5 * (value - target) ** 2
    assert losses.value_loss(values, old, returns, mask=mask, tokens=11).item() == pytest.approx(
        clipped_total / 11
    )
    assert losses.value_loss(
        values, old, returns, mask=mask, tokens=11, cliprange=None
    ).item() == pytest.approx(plain_total / 11)
    assert clipped_total > plain_total


def test_gradients_of_the_losses(mask: Tensor) -> None:
    old, advantages, returns = table(2, 0.2), table(3), table(6)
    inputs = table(1, 0.2).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda new: losses.policy_loss(new, old, advantages, mask=mask, tokens=9), inputs
    )
    assert torch.autograd.gradcheck(
        lambda new: losses.value_loss(new, old, returns, mask=mask, tokens=9), inputs
    )
    for loss in (
        losses.policy_loss(inputs, old, advantages, mask=mask, tokens=9),
        losses.value_loss(inputs, old, returns, mask=mask, tokens=9),
    ):
        (gradient,) = torch.autograd.grad(loss, inputs)
        assert gradient[~mask].abs().max() == 0, "tokens outside the answer are not trained"
        assert gradient[mask].abs().max() > 0


def test_losses_of_parts_add_up_to_the_loss_of_the_whole(mask: Tensor) -> None:
    new, old, advantages = table(1, 0.3), table(2, 0.3), table(3)
    whole = losses.policy_loss(new, old, advantages, mask=mask, tokens=8)
    parts = [losses.policy_loss(new[i], old[i], advantages[i], mask=mask[i], tokens=8) for i in ([0], [1, 2])]
    torch.testing.assert_close(sum(parts), whole)


@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 0.95), (0.9, 0.5), (1.0, 1.0), (1.0, 0.0)])
def test_generalised_advantages_from_the_definition(mask: Tensor, gamma: float, lam: float) -> None:
    rewards, values = table(7), table(8)
    advantages, returns = losses.generalised_advantages(rewards, values, mask, gamma=gamma, lam=lam)
    for row, (start, end) in enumerate(SPANS):
        for time in range(TIME):
            # the sum of later errors, each discounted from here: no recursion
            total = 0.0
            for later in range(time, end) if start <= time < end else ():
                next_value = float(values[row, later + 1]) if later + 1 < end else 0.0
                error = float(rewards[row, later]) + gamma * next_value - float(values[row, later])
                total += (gamma * lam) ** (later - time) * error
            assert advantages[row, time].item() == pytest.approx(total)
            if start <= time < end:
                assert returns[row, time].item() == pytest.approx(total + float(values[row, time]))
            else:
                assert returns[row, time] == 0
    if gamma == lam == 1.0:
        assert returns[0, 1].item() == pytest.approx(rewards[0, 1:5].sum().item())


@pytest.mark.parametrize("length", [1, 2, 3, 7, 64, 65, 1000, 4096])
@pytest.mark.parametrize("decay", [1.0, 0.95, 1e-3, 0.0])
def test_advantages_of_every_length_equal_those_of_a_loop(length: int, decay: float) -> None:
    draw = torch.Generator().manual_seed(length)
    gamma = 1.0 if decay == 1 else 0.99
    lam = decay / gamma
    rewards, values = torch.randn(2, 2, length, generator=draw, dtype=torch.float64)
    mask = torch.ones(2, length, dtype=torch.bool)
    mask[1, : length // 3] = mask[1, length - length // 4 :] = False
    expected = torch.zeros(2, length, dtype=torch.float64)
    for row in range(2):
        value = advantage = 0.0
        for time in reversed(mask[row].nonzero().flatten().tolist()):
            error = rewards[row, time].item() + gamma * value - values[row, time].item()
            advantage, value = error + gamma * lam * advantage, values[row, time].item()
            expected[row, time] = advantage
    whole, _ = losses.generalised_advantages(rewards, values, mask, gamma=gamma, lam=lam)
    torch.testing.assert_close(whole, expected, atol=1e-11, rtol=1e-11)
    single, _ = losses.generalised_advantages(rewards.float(), values.float(), mask, gamma=gamma, lam=lam)
    torch.testing.assert_close(single.double(), expected, atol=3e-5, rtol=1e-5)


def test_approximate_kl_and_clipped_tokens(mask: Tensor) -> None:
    ratios = table(9, 0.4)
    kl = sum(math.exp(ratios[c]) - 1 - float(ratios[c]) for c in cells())
    clipped = sum(abs(math.exp(ratios[c]) - 1) > 0.2 for c in cells())
    assert losses.approximate_kl(ratios, mask).item() == pytest.approx(kl)
    assert losses.clipped_tokens(ratios, mask).item() == clipped > 0
    assert losses.approximate_kl(torch.zeros(ROWS, TIME), mask) == 0


def test_approximate_kl_estimates_the_divergence() -> None:
    old, new = torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.4, 0.4, 0.2])
    exact = (old * (old / new).log()).sum()
    per_token = [
        losses.approximate_kl((new / old).log()[[i]], torch.ones(1, dtype=torch.bool)) for i in range(3)
    ]
    torch.testing.assert_close(sum(p * k for p, k in zip(old, per_token, strict=True)), exact)


def test_explained_variance() -> None:
    returns = torch.tensor([1.0, 2.0, 3.0, 4.0, 99.0])
    real = torch.tensor([True, True, True, True, False])
    assert losses.explained_variance(returns + 7, returns, real) == 1
    assert losses.explained_variance(torch.zeros(5), returns, real) == 0
    errors = torch.tensor([0.5, -0.5, 0.5, -0.5, 99.0])
    found = losses.explained_variance(returns - errors, returns, real).item()
    assert found == pytest.approx(1 - 0.25 / 1.25)
