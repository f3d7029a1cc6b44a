"""The reward that PPO maximises (section 3.2.3, equations 3 and 4): from two models' scores to token rewards.

    R(g | p) = whiten(logit(Rc(g | p))) - beta * KL(policy(g | p) || reference(g | p))

Pure functions. Scores are after the sigmoid, in (0, 1); the scorer returns them in float64, which preserves
the logits of scores near 0 and 1. A row is one answer. `mask` is `[rows, time]` bool, True at the states that
predict a token of the answer (EOS included).
"""

from __future__ import annotations

import torch
from torch import Tensor

from ...distributed.group import all_reduce_sum

_SCORE_MARGIN = 1e-6  # scores are clamped this far from 0 and 1, which bounds the logit to about +-13.8


def logit(score: Tensor) -> Tensor:
    """The inverse of the sigmoid, elementwise; scores are clamped to [1e-6, 1 - 1e-6]."""
    score = score.clamp(_SCORE_MARGIN, 1 - _SCORE_MARGIN)
    return score.log() - (-score).log1p()


def whiten(values: Tensor, mask: Tensor | None = None) -> Tensor:
    """Shifts and scales to mean 0 and variance 1 over the *global* batch: all ranks, unmasked entries only.

    Args:
        values: any shape, float.
        mask: same shape, bool; entries where it is False are ignored and returned as 0.

    Returns:
        The shape and dtype of `values`; all zeros if all values are equal.
    """
    mask = torch.ones_like(values, dtype=torch.bool) if mask is None else mask
    mean, variance = mean_and_variance(values, mask)
    whitened = (values.double() - mean) / (variance.sqrt() + 1e-8)  # + 1e-8: no division by 0
    return whitened.masked_fill(~mask, 0.0).to(values.dtype)


def mean_and_variance(values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance (divided by n) of the unmasked entries over all ranks, scalars in float64."""
    wide = values.double().masked_fill(~mask, 0.0)
    count = all_reduce_sum(mask.sum()).clamp(min=1)
    mean = all_reduce_sum(wide.sum()) / count
    centred = (wide - mean).masked_fill(~mask, 0.0)
    return mean, all_reduce_sum(centred.square().sum()) / count


def whitened_reward(piecewise: Tensor) -> Tensor:
    """whiten(logit(Rc)): `[rows]` scores in (0, 1) of the whole batch -> `[rows]`, mean 0 and variance 1."""
    return whiten(logit(piecewise))


def last_answer_state(mask: Tensor) -> Tensor:
    """`[rows]` int64, index of each row's last True: the state that predicts the answer's last token."""
    indices = torch.arange(mask.shape[1], device=mask.device)
    return torch.where(mask, indices, -1).amax(dim=1)


def kl_penalised_reward(
    scores: Tensor, logprobs: Tensor, ref_logprobs: Tensor, *, mask: Tensor, kl_coef: float
) -> Tensor:
    """The reward of each token: -beta * log(policy / reference); the last answer token adds the score.

    The log-ratio of a sampled token ("k1") is an unbiased estimate of the KL divergence. It is part of the
    reward, so it carries no gradient.

    Args:
        scores: `[rows]`, the answers' whitened rewards.
        logprobs: `[rows, time]` of the policy that sampled, at the start of the iteration.
        ref_logprobs: `[rows, time]` of the reference, the model that PPO started from.
        mask: `[rows, time]` bool, at least one True per row.
        kl_coef: beta.

    Returns:
        `[rows, time]` in the dtype of `logprobs`, 0 where the mask is False.
    """
    with torch.no_grad():
        rewards = (-kl_coef * (logprobs - ref_logprobs)).masked_fill(~mask, 0.0)
        last = last_answer_state(mask)[:, None]
        return rewards.scatter_add(1, last, scores.to(rewards.dtype)[:, None])
