"""What one iteration of PPO gathers: answers and their rewards, and how ranks and passes share them out."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ...batches import batches
from ...model.reward_models import RewardModels
from ...processes import rank, world_size
from ...sampling.sampler import Samples
from ..prompts import EncodedPrompt
from .reward import whiten, whitened_reward


@dataclass(frozen=True)
class Episodes:
    """This rank's answers of an iteration and how they were judged; all tensors `[rows]`, on the CPU.

    Attributes:
        prompts, answers: token ids; an answer includes its EOS where it ended.
        logprobs: as the sampler reported them, `[rows][tokens]`.
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


def score_episodes(
    prompts: Sequence[EncodedPrompt],
    samples: Samples,
    *,
    reward_models: RewardModels,
    missing_eos_penalty: float,
) -> Episodes:
    """Scores the samples and turns scores into rewards (section 3.2.3).

    An answer without an end pays `missing_eos_penalty`, or the policy would learn to ramble on. It loses the
    same whatever its prompt; a fixed reward would cost the kind of prompt with the higher scores more.
    """
    asked = [prompts[index] for index in samples.prompts]
    ids = [prompt.ids for prompt in asked]
    judged = reward_models.score_answers(ids, samples.contents, [prompt.prompt.is_safety for prompt in asked])
    finished = torch.tensor(samples.finished)
    reward = whitened_reward(judged.score) - missing_eos_penalty * ~finished
    return Episodes(
        prompts=ids,
        answers=samples.answer_ids,
        logprobs=samples.logprobs,
        finished=finished,
        safety=judged.safety,
        helpfulness=judged.helpfulness,
        score=judged.score,
        reward=reward,
    )


@dataclass(frozen=True)
class MicroBatch:
    """Answers that go through the models together, right-padded, and what these said before any step.

    Every forward pass of an iteration uses this very layout, so that before the first step the new
    log-probabilities equal the old ones.

    Attributes:
        ids: `[rows, time + 1]` int64.
        mask: `[rows, time]` bool, True at states that predict a token of the answer.
        sampled_logprobs, old_logprobs, reference_logprobs, old_values, advantages, returns: `[rows, time]`
            fp32, of the sampler, the policy, the reference and the critic.
        entropy: of the policy, summed over the answers' tokens, in nats.
    """

    ids: Tensor
    mask: Tensor
    sampled_logprobs: Tensor
    old_logprobs: Tensor
    reference_logprobs: Tensor
    old_values: Tensor
    advantages: Tensor
    returns: Tensor
    entropy: Tensor


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


def mini_batches(episodes: Episodes, mini_batch: int, micro_batch: int) -> list[list[list[int]]]:
    """Rows of the episodes, in their order, as mini-batches of micro-batches; sizes are this rank's.

    Within a mini-batch the answers are sorted by length, so that little is padded.
    """
    split = []
    for rows in batches(list(range(len(episodes.answers))), mini_batch):
        rows.sort(key=lambda row: len(episodes.prompts[row]) + len(episodes.answers[row]))
        split.append(batches(rows, micro_batch))
    return split


def whiten_advantages(minis: Sequence[Sequence[MicroBatch]]) -> list[list[MicroBatch]]:
    """The same batches, their advantages with mean 0 and variance 1 over all answers of the iteration."""
    flat = [batch for mini in minis for batch in mini]
    whitened = whiten(joined(flat, "advantages"), joined(flat, "mask"))
    parts = iter(whitened.split([batch.mask.numel() for batch in flat]))
    return [[replace(one, advantages=next(parts).view(one.mask.shape)) for one in mini] for mini in minis]


def joined(batches: Sequence[MicroBatch], name: str) -> Tensor:
    """One table of all micro-batches, flat, pads included."""
    return torch.cat([getattr(batch, name).flatten() for batch in batches])
