"""Diagnostics of a PPO iteration before its first step, over the tokens of all ranks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ...distributed.group import all_reduce_sum, gather_rows
from ...errors import LlamitaError
from ...settings import Precision
from . import losses
from .rollout import MicroBatch, concatenate

MAX_SAMPLER_DEVIATION = {"float32": 0.005, "bfloat16": 0.2}
"""Largest mean absolute difference of the sampler's and the trainer's logprobs, in nats per token, by the
precision of the passes.

In fp32 rounding gives 1e-6 to 1e-5, so the limit notices weights that are one iteration old if that changed a
logprob by more than 0.005 on average. In bf16 rounding alone gives 0.01 to 0.05, so the limit notices other
weights only if they differ by much: at 0.2 the probability ratio of an average token is outside the paper's
clip range of 0.2 (exp(0.2) is 1.22) although the policy has made no step."""

ADVICE: dict[Precision, str] = {
    "float32": "The sampler has other weights than the policy, or computes in TF32",
    "bfloat16": "Try dtype: float32; otherwise the sampler has other weights than the policy",
}


def sampler_metrics(batches: Sequence[MicroBatch], *, cliprange: float) -> dict[str, float]:
    """How far the sampler's logprobs of the answers are from the trainer's, before the first step.

    Returns the mean and the 95th percentile of the absolute difference in nats per token, and the share of
    tokens whose probability ratio differs from 1 by more than `cliprange`.
    """
    mask = concatenate(batches, "mask")
    differences = concatenate(batches, "old_logprobs") - concatenate(batches, "sampled_logprobs")
    own = differences[mask].double().cpu().numpy()
    values = np.concatenate(gather_rows([own]))
    limited = values.clip(-losses.LOG_RATIO_LIMIT, losses.LOG_RATIO_LIMIT)
    return {
        "sampler_deviation": float(np.abs(values).mean()),
        "sampler_deviation_p95": float(np.quantile(np.abs(values), 0.95)),
        "sampler_clip_fraction": float((np.abs(np.expm1(limited)) > cliprange).mean()),
    }


def check_sampler(deviation: float, precision: Precision) -> None:
    """Raises LlamitaError if the mean deviation is above the limit of the precision of the passes."""
    limit = MAX_SAMPLER_DEVIATION[precision]
    if deviation > limit:
        raise LlamitaError(
            "PPO: the sampler's log-probabilities of the answers differ from the trainer's by "
            f"{deviation:.3g} nats per token on average (ppo/sampler_deviation); at most {limit} are allowed "
            f"in {precision}: the answers are not samples of the policy that is updated with them. "
            f"{ADVICE[precision]}"
        )


def advantage_metrics(batches: Sequence[MicroBatch], by_safety: Sequence[Tensor]) -> dict[str, float]:
    """Mean and standard deviation of the advantages before whitening, over all tokens and by branch.

    A branch without answers is missing.

    Args:
        batches: with advantages that are not whitened.
        by_safety: for each batch `[rows]` bool on the CPU, the answers scored by the safety model.
    """
    mask, advantages = concatenate(batches, "mask"), concatenate(batches, "advantages").double()
    of_safety = torch.cat(
        [
            rows.to(batch.mask.device)[:, None].expand_as(batch.mask).flatten()
            for batch, rows in zip(batches, by_safety, strict=True)
        ]
    )
    groups = {
        "": mask,
        "_safety_branch": mask & of_safety,
        "_helpfulness_branch": mask & ~of_safety,
    }
    counts, totals = (
        all_reduce_sum(torch.stack(sums))
        for sums in (
            [group.double().sum() for group in groups.values()],
            [advantages[group].sum() for group in groups.values()],
        )
    )
    means = totals / counts.clamp(min=1)
    squares = all_reduce_sum(
        torch.stack(
            [
                (advantages[group] - mean).square().sum()
                for group, mean in zip(groups.values(), means, strict=True)
            ]
        )
    )
    deviations = (squares / counts.clamp(min=1)).sqrt()
    found: dict[str, float] = {}
    for name, count, mean, deviation in zip(
        groups, *torch.stack([counts, means, deviations]).tolist(), strict=True
    ):
        if count:
            found |= {f"advantage_mean{name}": mean, f"advantage_std{name}": deviation}
    return found
