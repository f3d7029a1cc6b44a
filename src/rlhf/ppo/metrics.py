"""Metrics of an iteration of PPO, over the answers of all ranks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ...distributed.group import all_reduce_sum
from ...processes import rank, world_size
from . import losses
from .rollout import Episodes, MicroBatch, joined

Metrics = dict[str, float]


def episode_metrics(episodes: Episodes) -> Metrics:
    """Means over the answers of all ranks."""
    columns = {
        "reward": episodes.reward,
        "score": episodes.score,
        "safety_score": episodes.safety,
        "helpfulness_score": episodes.helpfulness,
        "truncated_share": ~episodes.finished,
        "answer_length": torch.tensor([len(answer) for answer in episodes.answers]),
    }
    sums = all_reduce_sum(torch.stack([column.double().sum() for column in columns.values()]))
    rows = len(episodes.answers) * world_size()
    return {name: float(total) / rows for name, total in zip(columns, sums, strict=True)}


def model_metrics(batches: Sequence[MicroBatch]) -> Metrics:
    """How the policy differs from its start and from the sampler, its entropy, and how the critic guessed."""
    mask, old = joined(batches, "mask"), joined(batches, "old_logprobs")
    from_start = (old - joined(batches, "reference_logprobs"))[mask].double().sum()
    from_sampler = (old - joined(batches, "sampled_logprobs"))[mask].double().abs().sum()
    rows = sum(len(batch.ids) for batch in batches) * world_size()
    explained = losses.explained_variance(joined(batches, "old_values"), joined(batches, "returns"), mask)
    return {
        "kl": float(all_reduce_sum(from_start)) / rows,
        "sampler_deviation": _per_token(from_sampler, mask),
        "explained_variance": float(explained),
        "entropy": _per_token(torch.stack([batch.entropy for batch in batches]).sum(), mask),
    }


def _per_token(total: Tensor, mask: Tensor) -> float:
    return float(all_reduce_sum(total) / all_reduce_sum(mask.sum()))


def largest_over_ranks(value: Tensor) -> float:
    table = torch.zeros(world_size(), device=value.device)
    table[rank()] = value
    return float(all_reduce_sum(table).max())
