"""Optimizer steps of policy and critic on one mini-batch."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor

from ...distributed.device import device
from ...distributed.group import all_reduce_max, all_reduce_sum
from ...training.engine import Engine
from . import losses
from .metrics import Metrics
from .passes import Passes
from .rollout import MicroBatch

Totals = dict[str, Tensor]  # scalars of a step on this rank; on the device, so that Python needs no waiting

_LARGEST = frozenset({"ratio_deviation"})  # the ranks' largest counts, of all others the sum
_COMMON = frozenset({"policy_gradient_norm", "critic_gradient_norm"})  # the same on all ranks


def policy_step(
    engine: Engine, passes: Passes, mini: Sequence[MicroBatch], *, tokens: int, cliprange: float
) -> Totals:
    """One optimizer step of the policy; `tokens`: answer tokens of the mini-batch, all ranks."""
    totals: Totals = defaultdict(_zero)
    for batch in mini:
        logprobs = passes.logprobs(batch)
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
        totals["policy_loss"] += loss.detach()
        totals["approx_kl"] += losses.approximate_kl(log_ratios, batch.mask) / tokens
        totals["clip_fraction"] += losses.clipped_tokens(log_ratios, batch.mask, cliprange) / tokens
        deviation = (log_ratios.exp() - 1).abs().max()
        totals["ratio_deviation"] = torch.maximum(totals["ratio_deviation"], deviation)
    return totals | {"policy_gradient_norm": torch.as_tensor(engine.step(), device=device())}


def value_step(
    engine: Engine, passes: Passes, mini: Sequence[MicroBatch], *, tokens: int, cliprange: float | None
) -> Totals:
    """One optimizer step of the critic; `tokens` as in `policy_step`, `cliprange` None: no clipping."""
    totals: Totals = defaultdict(_zero)
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
        totals["value_loss"] += loss.detach()
    return totals | {"critic_gradient_norm": torch.as_tensor(engine.step(), device=device())}


def over_ranks(steps: Sequence[Totals]) -> list[Metrics]:
    """The metrics of each step over all ranks, with the same names in all steps: one wait for the device."""
    names = list(steps[0])
    own = torch.stack([torch.stack([step[name].double() for name in names]) for step in steps])
    sums, largest = all_reduce_sum(own), all_reduce_max(own)
    columns = [
        (largest if name in _LARGEST else own if name in _COMMON else sums)[:, place]
        for place, name in enumerate(names)
    ]
    return [dict(zip(names, row, strict=True)) for row in torch.stack(columns, dim=1).tolist()]


def _zero() -> Tensor:
    return torch.zeros((), device=device())
