"""The reward that PPO maximises (section 3.2.3), from the scores of two models to a number for each token.

    R(g | p) = whiten(logit(Rc(g | p))) - beta * KL(policy(g | p) || start(g | p))

Pure functions. Scores are after the sigmoid, in (0, 1), float64 where they come from the scorer, so that the
logit of a confident score keeps its digits. A row is an answer; `mask` is `[rows, time]` bool, True at the
states that predict a token of the answer (EOS included).
"""

from __future__ import annotations

import torch
from torch import Tensor

from ...distributed.group import all_reduce_sum

# Scores this close to 0 or 1 tell nothing apart; it bounds the logit at about +-13.8.
_SCORE_MARGIN = 1e-6


def logit(score: Tensor) -> Tensor:
    """The inverse of the sigmoid, elementwise; scores of 0 or 1 are taken as 1e-6 and 1 - 1e-6."""
    score = score.clamp(_SCORE_MARGIN, 1 - _SCORE_MARGIN)
    return score.log() - (-score).log1p()


def whiten(values: Tensor, mask: Tensor | None = None) -> Tensor:
    """Shifts and scales to mean 0 and variance 1 over the *global* batch: all ranks, real entries only.

    Args:
        values: any shape, float.
        mask: same shape, bool; entries where it is False take no part and come back as 0.

    Returns:
        The shape and dtype of `values`. A batch without spread becomes all zeros.
    """
    real = torch.ones_like(values, dtype=torch.bool) if mask is None else mask
    mean, variance = moments(values, real)
    # 1e-8 stands in for the deviation of a batch whose values are all alike.
    whitened = (values.double() - mean) / (variance.sqrt() + 1e-8)
    return whitened.masked_fill(~real, 0.0).to(values.dtype)


def moments(values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance (divided by n) of the real entries over all ranks, scalars in float64."""
    wide = values.double().masked_fill(~mask, 0.0)
    count = all_reduce_sum(mask.sum()).clamp(min=1)
    mean = all_reduce_sum(wide.sum()) / count
    centred = (wide - mean).masked_fill(~mask, 0.0)
    return mean, all_reduce_sum(centred.square().sum()) / count


def whitened_reward(piecewise: Tensor) -> Tensor:
    """whiten(logit(Rc)): `[rows]` scores in (0, 1) of the whole batch -> `[rows]`, mean 0 and variance 1."""
    return whiten(logit(piecewise))


def last_answer_state(mask: Tensor) -> Tensor:
    """`[rows]` int64, the place of each row's last True: the state that predicts the answer's last token."""
    places = torch.arange(mask.shape[1], device=mask.device)
    return torch.where(mask, places, -1).amax(dim=1)


def kl_penalised_reward(
    scores: Tensor, logprobs: Tensor, reference_logprobs: Tensor, *, mask: Tensor, coefficient: float
) -> Tensor:
    """The reward of each token: -beta * log(policy / start), and the score too on the answer's last token.

    The log-ratio of a sampled token ("k1") estimates the KL divergence without bias. It is part of the
    reward, so nothing is differentiated here.

    Args:
        scores: `[rows]`, the answer's whitened reward.
        logprobs: `[rows, time]` of the policy that sampled, at the start of the iteration.
        reference_logprobs: `[rows, time]` of the model that PPO started from.
        mask: `[rows, time]` bool, at least one True a row.
        coefficient: beta.

    Returns:
        `[rows, time]` in the dtype of `logprobs`, 0 where the mask is False.
    """
    with torch.no_grad():
        rewards = (-coefficient * (logprobs - reference_logprobs)).masked_fill(~mask, 0.0)
        last = last_answer_state(mask)[:, None]
        return rewards.scatter_add(1, last, scores.to(rewards.dtype)[:, None])
