"""Proximal policy optimisation (section 3.2.3; Schulman et al. 2017) as pure functions of tensors.

Everything is `[rows, time]`: a row is an answer, time runs over the states of prompt and answer. State `t` is
the one that predicts token `t + 1`; `mask` (bool) is True where that token is the answer's, EOS included. The
value at `t` is thus the critic's expectation *before* the token is chosen.

Losses are sums over this batch's answer tokens divided by `tokens`, the number of answer tokens in the whole
mini-batch: shares that micro-batches and ranks add up, never a mean of means.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .reward import moments

LOG_RATIO_LIMIT = 20.0  # beyond exp(20) a ratio says nothing and overflows in half precision


def log_ratio(logprobs: Tensor, old_logprobs: Tensor, mask: Tensor) -> Tensor:
    """log(new / old) of each token, within +-20, and 0 where the mask is False."""
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
    """The clipped surrogate: -min(ratio * A, clip(ratio, 1 - c, 1 + c) * A).

    Args:
        logprobs: `[rows, time]` of the policy being trained; the gradient flows through these alone.
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
    """Half the squared error, pessimistic about values that left the old ones by more than the threshold.

    The paper says nothing of its critic; clipping it as the policy is what the field does.

    Args:
        values: `[rows, time]` of the critic being trained.
        old_values: `[rows, time]` of the critic at the start of the iteration.
        returns: `[rows, time]`.
        tokens: answer tokens of the whole mini-batch.
        cliprange: None does not clip (while the critic warms up).

    Returns:
        A scalar.
    """
    error = (values - returns).square()
    if cliprange is not None:
        near = old_values + (values - old_values).clamp(-cliprange, cliprange)
        error = torch.maximum(error, (near - returns).square())
    return 0.5 * error.masked_fill(~mask, 0.0).sum() / tokens


def generalised_advantages(
    rewards: Tensor, values: Tensor, mask: Tensor, *, gamma: float = 1.0, lam: float = 0.95
) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimation (Schulman et al. 2016); the episode ends with the answer's last token.

    delta_t = r_t + gamma * V_{t+1} - V_t;  A_t = delta_t + gamma * lambda * A_{t+1};  return_t = A_t + V_t

    Nothing is expected after an answer that was cut at the length limit either: it counts as ended.

    Args:
        rewards, values: `[rows, time]`.
        mask: `[rows, time]` bool, one unbroken run of True a row.

    Returns:
        advantages and returns, `[rows, time]` each, 0 where the mask is False.
    """
    values = values.masked_fill(~mask, 0.0)
    advantages = torch.zeros_like(values)
    next_value = next_advantage = torch.zeros_like(values[:, 0])
    for time in reversed(range(values.shape[1])):
        delta = rewards[:, time] + gamma * next_value - values[:, time]
        advantage = delta + gamma * lam * next_advantage
        next_advantage = advantage.masked_fill(~mask[:, time], 0.0)
        next_value = values[:, time]
        advantages[:, time] = next_advantage
    return advantages, advantages + values


def approximate_kl(log_ratios: Tensor, mask: Tensor) -> Tensor:
    """Sum over tokens of exp(x) - 1 - x with x = log(new / old): KL(old || new), never negative ("k3")."""
    return (log_ratios.exp() - 1 - log_ratios).masked_fill(~mask, 0.0).sum()


def clipped_tokens(log_ratios: Tensor, mask: Tensor, cliprange: float = 0.2) -> Tensor:
    """How many tokens have a ratio further from 1 than the threshold."""
    return (((log_ratios.exp() - 1).abs() > cliprange) & mask).sum()


def entropy(distribution: Tensor, mask: Tensor) -> Tensor:
    """Sum over answer tokens of the entropy in nats; `distribution`: `[rows, time, vocabulary]` log-probs."""
    return torch.special.entr(distribution.exp()).sum(-1).masked_fill(~mask, 0.0).sum()


def explained_variance(values: Tensor, returns: Tensor, mask: Tensor) -> Tensor:
    """1 - Var(returns - values) / Var(returns) over all ranks, any shape; NaN where all returns are alike.

    1 is a perfect critic, 0 one that knows the mean only, less one that knows less than that.
    """
    _, unexplained = moments(returns - values, mask)
    _, variance = moments(returns, mask)
    return 1 - unexplained / variance
