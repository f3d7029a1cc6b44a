"""Metrics of a PPO iteration, over the answers of all ranks."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ...data.rows import CONTEXTS
from ...distributed.group import all_reduce_sum
from ...processes import world_size
from . import losses
from .diagnostics import sampler_metrics
from .rollout import Episodes, MicroBatch, concatenate

Metrics = dict[str, float]


class PhaseTimer:
    """Wall-clock seconds of an iteration's phases on this rank, by `time/<phase>_seconds`."""

    def __init__(self) -> None:
        self.seconds: Metrics = {}
        self._started = time.monotonic()

    def end(self, phase: str) -> float:
        """Ends a phase, which began when the previous one ended; returns its seconds."""
        now = time.monotonic()
        seconds = self.seconds[f"time/{phase}_seconds"] = now - self._started
        self._started = now
        return seconds


def episode_metrics(episodes: Episodes, by_safety: Tensor) -> Metrics:
    """Mean scores and rewards, share of truncated answers and mean length, over the answers of all ranks.

    `by_safety`: `[rows]` bool, the answers whose piecewise score is the safety score. The means by branch
    are missing if a branch has no answers.

    `adversarial_safety_score_<context>` is the mean safety score of the answers to adversarial prompts of a
    context; it is missing if the iteration has no such prompts.
    """
    columns = {
        "reward": episodes.score,
        "whitened_reward": episodes.whitened_reward,
        "safety_score": episodes.safety,
        "helpfulness_score": episodes.helpfulness,
        "truncated_share": ~episodes.finished,
        "answer_length": torch.tensor([len(answer) for answer in episodes.answers]),
        "safety_branch_share": by_safety,
    }
    if episodes.judge is not None:
        columns["judge_score"] = episodes.judge
    sums = all_reduce_sum(torch.stack([column.double().sum() for column in columns.values()]))
    rows = len(episodes.answers) * world_size()
    means = {name: float(total) / rows for name, total in zip(columns, sums, strict=True)}
    branches = {"reward_safety_branch": by_safety, "reward_helpfulness_branch": ~by_safety}
    contexts = {
        f"adversarial_safety_score_{name}": episodes.adversarial
        & torch.tensor([context == name for context in episodes.contexts])
        for name in CONTEXTS
    }
    return means | _means_of(episodes.score, branches) | _means_of(episodes.safety, contexts)


def _means_of(values: Tensor, groups: Mapping[str, Tensor]) -> Metrics:
    """The mean of `values` in each group that has rows on any rank; groups: `[rows]` bool."""
    sums = [torch.stack([values[group].double().sum(), group.double().sum()]) for group in groups.values()]
    table = all_reduce_sum(torch.stack(sums)).tolist()
    return {name: total / count for name, (total, count) in zip(groups, table, strict=True) if count}


def model_metrics(batches: Sequence[MicroBatch], *, cliprange: float) -> Metrics:
    """KL to the reference, deviation from the sampler's logprobs, entropy, explained variance of the critic.

    All are measured before the first step of the iteration.
    """
    mask, logprobs = concatenate(batches, "mask"), concatenate(batches, "old_logprobs")
    log_ratios = (logprobs - concatenate(batches, "ref_logprobs"))[mask].double().sum()
    values, returns = concatenate(batches, "old_values"), concatenate(batches, "returns")
    rows = sum(len(batch.ids) for batch in batches) * world_size()
    return {
        "kl": float(all_reduce_sum(log_ratios)) / rows,
        **sampler_metrics(batches, cliprange=cliprange),
        "explained_variance": float(losses.explained_variance(values, returns, mask)),
        "entropy": _mean_per_token(torch.stack([batch.entropy for batch in batches]).sum(), mask),
    }


def _mean_per_token(total: Tensor, mask: Tensor) -> float:
    return float(all_reduce_sum(total) / all_reduce_sum(mask.sum()))
