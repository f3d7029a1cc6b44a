"""What one iteration of PPO gathers: answers, rewards, and what the models say of them before learning."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..batches import batches
from ..data.rows import Prompt
from ..model.padding import pad_batch
from ..processes import rank, world_size
from ..sampling.sampler import Samples
from .reward import piecewise_reward, whitened_reward

Scores = Callable[[Sequence[Sequence[int]], Sequence[Sequence[int]]], Tensor]
"""Prompts and answers as token ids, no token that ended them -> `[rows]` scores after the sigmoid."""


@dataclass(frozen=True)
class EncodedPrompt:
    """A prompt with its token ids, from BOS to [/INST]."""

    prompt: Prompt
    ids: list[int]

    def row(self) -> dict[str, Any]:
        """As the prompts of a round are kept, the way sources read them."""
        return {"messages": self.prompt.messages, "is_safety": self.prompt.is_safety}


@dataclass(frozen=True)
class Episodes:
    """This rank's answers of an iteration and how they were judged; all tensors `[rows]`, on the CPU.

    Attributes:
        prompts, answers: token ids; an answer includes its EOS where it ended.
        logprobs: as the sampler told them, `[rows][tokens]`.
        finished: bool; False for an answer cut at the length limit.
        safety, helpfulness, score: in (0, 1), score being the piecewise one.
        reward: whitened over all ranks, less the penalty for a missing EOS.
    """

    prompts: list[list[int]]
    answers: list[list[int]]
    logprobs: list[list[float]]
    finished: Tensor
    safety: Tensor
    helpfulness: Tensor
    score: Tensor
    reward: Tensor


def judge(
    prompts: Sequence[EncodedPrompt],
    samples: Samples,
    *,
    safety: Scores,
    helpfulness: Scores,
    safety_threshold: float,
    missing_eos_penalty: float,
) -> Episodes:
    """Scores the samples and turns scores into rewards (section 3.2.3).

    An answer without an end pays `missing_eos_penalty`, or the policy would learn to ramble on. It loses the
    same whatever its prompt; a fixed reward would cost the kind of prompt with the higher scores more.
    """
    told = [prompts[index] for index in samples.prompts]
    ids = [prompt.ids for prompt in told]
    safe, helpful = safety(ids, samples.contents), helpfulness(ids, samples.contents)
    is_safety = torch.tensor([prompt.prompt.is_safety for prompt in told])
    score = piecewise_reward(safe, helpful, is_safety, safety_threshold)
    finished = torch.tensor(samples.finished)
    reward = whitened_reward(score) - missing_eos_penalty * ~finished
    return Episodes(ids, samples.answer_ids, samples.logprobs, finished, safe, helpful, score, reward)


@dataclass
class MicroBatch:
    """Answers that go through the models together, right-padded; tables are `[rows, time]` (see `ppo`).

    Every forward pass of an iteration uses this very layout, so that before the first step the new
    log-probabilities equal the old ones.
    """

    ids: Tensor
    mask: Tensor
    reward: Tensor
    sampled_logprobs: Tensor
    old_logprobs: Tensor = field(init=False)
    reference_logprobs: Tensor = field(init=False)
    old_values: Tensor = field(init=False)
    advantages: Tensor = field(init=False)
    returns: Tensor = field(init=False)


def rank_share(episodes: int, mini_batch: int, seed: str) -> list[int]:
    """The episodes of an iteration that this rank samples and trains on, one mini-batch after the other.

    The shuffle knows nothing of ranks, and each rank takes its share of every mini-batch: two ranks make the
    steps that one would make.

    Args:
        episodes, mini_batch: rows over all ranks.
        seed: names the shuffle.
    """
    order = random.Random(seed).sample(range(episodes), episodes)
    return [place for mini in batches(order, mini_batch) for place in mini[rank() :: world_size()]]


def mini_batches(
    episodes: Episodes, mini_batch: int, micro_batch: int, device: torch.device
) -> list[list[MicroBatch]]:
    """Splits the episodes, in their order, into mini-batches of micro-batches; sizes in rows of this rank.

    Within a mini-batch the answers are sorted by length, so that little is padded.
    """
    split = []
    for rows in batches(list(range(len(episodes.answers))), mini_batch):
        rows.sort(key=lambda row: len(episodes.prompts[row]) + len(episodes.answers[row]))
        split.append([_micro_batch(episodes, part, device) for part in batches(rows, micro_batch)])
    return split


def _micro_batch(episodes: Episodes, rows: Sequence[int], device: torch.device) -> MicroBatch:
    ids, mask = pad_batch([episodes.prompts[row] for row in rows], [episodes.answers[row] for row in rows])
    sampled = torch.zeros(mask.shape)
    sampled[mask] = torch.tensor([value for row in rows for value in episodes.logprobs[row]])
    reward = episodes.reward[rows].float()
    return MicroBatch(ids.to(device), mask.to(device), reward.to(device), sampled.to(device))
