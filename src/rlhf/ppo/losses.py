"""Proximal policy optimisation (section 3.2.3; Schulman et al. 2017) as pure functions of tensors.

All tensors are `[rows, time]` unless stated otherwise. A row is one answer; time indexes the states of prompt
and answer. State `t` predicts token `t + 1`. `mask` (bool) is True where token `t + 1` belongs to the answer,
EOS included. The value at `t` is the critic's prediction *before* that token is chosen.

Losses are sums over the answer tokens of a micro-batch, divided by `tokens`: the number of answer tokens in
the whole mini-batch, over all its micro-batches and ranks. The losses of the parts thus add up to the mean
over the mini-batch.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .reward import mean_and_variance

LOG_RATIO_LIMIT = 20.0  # a ratio above exp(20) is meaningless and overflows in half precision


def log_ratio(logprobs: Tensor, old_logprobs: Tensor, mask: Tensor) -> Tensor:
    """log(new / old) of each token, clamped to +-20; 0 where the mask is False."""
    ratio = (logprobs - old_logprobs).clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)
    return ratio.masked_fill(~mask, 0.0)


def policy_loss(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    *,
    mask: Tensor,
    tokens: int,
    cliprange: float = 0.2,
) -> Tensor:
    """The clipped surrogate objective: -min(ratio * A, clip(ratio, 1 - c, 1 + c) * A).

    Args:
        logprobs: `[rows, time]` of the policy being trained; only these carry a gradient.
        old_logprobs: `[rows, time]` of the policy that sampled, from the trainer's own forward pass.
        advantages: `[rows, time]`.
        tokens: answer tokens of the whole mini-batch, over micro-batches and ranks.
        cliprange: 0.2 in the paper.

    Returns:
        A scalar.
    """
    ratio = log_ratio(logprobs, old_logprobs, mask).exp()
    clipped = ratio.clamp(1 - cliprange, 1 + cliprange)
    surrogate = torch.minimum(ratio * advantages, clipped * advantages)
    return -surrogate.masked_fill(~mask, 0.0).sum() / tokens


def value_loss(
    values: Tensor,
    old_values: Tensor,
    returns: Tensor,
    *,
    mask: Tensor,
    tokens: int,
    cliprange: float | None = 0.2,
) -> Tensor:
    """Half the squared error, the larger one of the value and of the value clipped around the old value.

    The paper does not describe its critic; clipping the value like the policy is common practice.

    Args:
        values: `[rows, time]` of the critic being trained.
        old_values: `[rows, time]` of the critic at the start of the iteration.
        returns: `[rows, time]`.
        tokens: answer tokens of the whole mini-batch, over micro-batches and ranks.
        cliprange: largest change of the clipped value; None: no clipping (critic warm-up).

    Returns:
        A scalar.
    """
    error = (values - returns).square()
    if cliprange is not None:
        clipped = old_values + (values - old_values).clamp(-cliprange, cliprange)
        error = torch.maximum(error, (clipped - returns).square())
    return 0.5 * error.masked_fill(~mask, 0.0).sum() / tokens


def generalised_advantages(
    rewards: Tensor, values: Tensor, mask: Tensor, *, gamma: float = 1.0, lam: float = 0.95
) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimation (Schulman et al. 2016); an episode ends with the answer's last token.

    delta_t = r_t + gamma * V_{t+1} - V_t;  A_t = delta_t + gamma * lambda * A_{t+1};  return_t = A_t + V_t

    An answer truncated at the length limit counts as ended: the value after its last token is 0 too.

    Args:
        rewards, values: `[rows, time]`.
        mask: `[rows, time]` bool, True on one contiguous range of each row.

    Returns:
        advantages and returns, `[rows, time]` each, 0 where the mask is False.
    """
    values = values.masked_fill(~mask, 0.0)
    next_values = F.pad(values[:, 1:], (0, 1))
    advantages = (rewards + gamma * next_values - values).masked_fill(~mask, 0.0)
    # doubling: the discounted sum of 1, 2, 4, ... errors from each state on
    span, discount = 1, gamma * lam
    while span < advantages.shape[1]:
        advantages = advantages + discount * F.pad(advantages[:, span:], (0, span))
        span, discount = 2 * span, discount * discount
    advantages = advantages.masked_fill(~mask, 0.0)
    return advantages, advantages + values


def approximate_kl(log_ratios: Tensor, mask: Tensor) -> Tensor:
    """Estimate of KL(old || new), summed over tokens: exp(x) - 1 - x, x = log(new / old) ("k3", >= 0)."""
    return (log_ratios.exp() - 1 - log_ratios).masked_fill(~mask, 0.0).sum()


def clipped_tokens(log_ratios: Tensor, mask: Tensor, cliprange: float = 0.2) -> Tensor:
    """Number of tokens whose ratio differs from 1 by more than the clip range."""
    return (((log_ratios.exp() - 1).abs() > cliprange) & mask).sum()


def explained_variance(values: Tensor, returns: Tensor, mask: Tensor) -> Tensor:
    """1 - Var(returns - values) / Var(returns) over all ranks, any shape; NaN if all returns are equal.

    1: the critic predicts every return; 0: no better than a constant; below 0: worse than a constant.
    """
    _, unexplained = mean_and_variance(returns - values, mask)
    _, variance = mean_and_variance(returns, mask)
    return 1 - unexplained / variance
