"""Optimizer steps of policy and critic on one mini-batch."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor

from ...distributed.device import device
from ...distributed.group import all_reduce_sum
from ...training.engine import Engine
from . import losses
from .metrics import Metrics, max_over_ranks
from .passes import Passes
from .rollout import MicroBatch


def policy_step(
    engine: Engine, passes: Passes, mini: Sequence[MicroBatch], tokens: int, *, cliprange: float
) -> Metrics:
    """One optimizer step of the policy; `tokens`: answer tokens of the mini-batch, all ranks."""
    sums = _Sums()
    deviation = torch.zeros((), device=device())
    for batch in mini:
        logprobs = passes.logprobs(batch.ids)
        loss = losses.policy_loss(
            logprobs,
            batch.old_logprobs,
            batch.advantages,
            mask=batch.mask,
            tokens=tokens,
            cliprange=cliprange,
        )
        engine.backward(loss, last=batch is mini[-1])
        log_ratios = losses.log_ratio(logprobs.detach(), batch.old_logprobs, batch.mask)
        sums["policy_loss"] += loss.detach()
        sums["approx_kl"] += losses.approximate_kl(log_ratios, batch.mask) / tokens
        sums["clip_fraction"] += losses.clipped_tokens(log_ratios, batch.mask, cliprange) / tokens
        deviation = torch.maximum(deviation, (log_ratios.exp() - 1).abs().max())
    norm = engine.step()
    return sums.over_ranks() | {
        "policy_gradient_norm": norm,
        "ratio_deviation": max_over_ranks(deviation),
    }


def value_step(
    engine: Engine, passes: Passes, mini: Sequence[MicroBatch], tokens: int, *, cliprange: float | None
) -> Metrics:
    """One optimizer step of the critic; `tokens` as in `policy_step`, `cliprange` None: no clipping."""
    sums = _Sums()
    for batch in mini:
        loss = losses.value_loss(
            passes.values(batch.ids),
            batch.old_values,
            batch.returns,
            mask=batch.mask,
            tokens=tokens,
            cliprange=cliprange,
        )
        engine.backward(loss, last=batch is mini[-1])
        sums["value_loss"] += loss.detach()
    return sums.over_ranks() | {"critic_gradient_norm": engine.step()}


class _Sums(defaultdict[str, Tensor]):
    """Sums over the micro-batches of a step, on the device; a new name starts at 0."""

    def __init__(self) -> None:
        super().__init__(lambda: torch.zeros((), device=device()))

    def over_ranks(self) -> Metrics:
        return {name: float(all_reduce_sum(total)) for name, total in self.items()}
