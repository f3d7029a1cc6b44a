"""The rollout of a PPO iteration: answers with their scores and rewards, and their split into batches."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ...batches import batches
from ...data.rows import Context
from ...errors import ConfigError
from ...model.reward_models import RewardModels
from ...processes import rank, world_size
from ...sampling.sampler import Samples
from ..prompts import EncodedPrompt
from .reward import whiten, whitened_reward
from .settings import PpoSettings


@dataclass(frozen=True)
class Episodes:
    """This rank's answers of an iteration and their scores; all tensors are `[rows]`, on the CPU.

    Attributes:
        prompts, answers: token ids; a finished answer includes its EOS.
        contexts: context of each prompt.
        adversarial: bool, whether each prompt is adversarial.
        logprobs: log-probability of each answer token, as reported by the sampler, `[rows][tokens]`.
        finished: bool; False for an answer truncated at the length limit.
        safety, helpfulness: scores of the two reward models, in (0, 1).
        judge: score of the third reward model, in (0, 1); None if there is none.
        score: the piecewise score Rc, in (0, 1).
        whitened_reward: the whitened logit of `score`, minus the penalty if the EOS is missing.
    """

    prompts: list[list[int]]
    answers: list[list[int]]
    contexts: list[Context]
    adversarial: Tensor
    logprobs: list[list[float]]
    finished: Tensor
    safety: Tensor
    helpfulness: Tensor
    judge: Tensor | None
    score: Tensor
    whitened_reward: Tensor


def score_episodes(
    prompts: Sequence[EncodedPrompt],
    samples: Samples,
    *,
    reward_models: RewardModels,
    missing_eos_penalty: float,
) -> Episodes:
    """Scores the answers and computes their rewards, whitened over the answers of all ranks (section 3.2.3).

    `missing_eos_penalty` is subtracted from the reward of truncated answers; without it the policy would
    learn not to stop. All prompts lose the same amount. A fixed reward for truncated answers, in contrast,
    would cost more for prompts with higher scores.
    """
    sampled_prompts = [prompts[index] for index in samples.prompts]
    ids = [prompt.ids for prompt in sampled_prompts]
    is_safety = [prompt.prompt.is_safety for prompt in sampled_prompts]
    scores = reward_models.score_answers(ids, samples.contents, is_safety)
    judge = reward_models.judge
    finished = torch.tensor(samples.finished)
    return Episodes(
        prompts=ids,
        answers=samples.answer_ids,
        contexts=[prompt.prompt.context for prompt in sampled_prompts],
        adversarial=torch.tensor(is_safety),
        logprobs=samples.logprobs,
        finished=finished,
        safety=scores.safety,
        helpfulness=scores.helpfulness,
        judge=judge and judge(ids, samples.contents, None),
        score=scores.score,
        whitened_reward=whitened_reward(scores.score) - missing_eos_penalty * ~finished,
    )


@dataclass(frozen=True)
class MicroBatch:
    """Answers that share a forward pass, right-padded, with the models' outputs before the first step.

    Every forward pass of an iteration uses the same layout, so the new log-probabilities equal the old ones
    until the first step.

    Attributes:
        ids: `[rows, time + 1]` int64, prompts and answers.
        mask: `[rows, time]` bool, True at states that predict a token of the answer.
        sampled_logprobs: `[rows, time]` fp32, as reported by the sampler.
        old_logprobs, ref_logprobs: `[rows, time]` fp32, of the policy and of the reference.
        old_values, advantages, returns: `[rows, time]` fp32.
        entropy: entropy of the policy in nats, summed over the answer tokens; a scalar.
    """

    ids: Tensor
    mask: Tensor
    sampled_logprobs: Tensor
    old_logprobs: Tensor
    ref_logprobs: Tensor
    old_values: Tensor
    advantages: Tensor
    returns: Tensor
    entropy: Tensor


def sizes_per_rank(settings: PpoSettings) -> tuple[int, int]:
    """Rows of a mini-batch and of a micro-batch on one rank.

    Raises ConfigError if the mini-batch cannot be split evenly.
    """
    mini, remainder = divmod(settings.mini_batch_size, world_size())
    micro = settings.micro_batch_size or mini
    if remainder or mini % micro:
        raise ConfigError(
            f"mini_batch_size {settings.mini_batch_size} cannot be split over {world_size()} ranks in "
            f"micro-batches of {micro}; choose a multiple of {world_size()} x {micro}"
        )
    return mini, micro


def rank_share(episodes: int, mini_batch_size: int, seed: str) -> list[int]:
    """Indices of the iteration's episodes that this rank samples and trains on, mini-batch after mini-batch.

    The shuffle does not depend on the ranks, and each rank takes an equal share of every mini-batch. Training
    therefore takes the same steps on any number of ranks.

    Args:
        episodes, mini_batch_size: numbers of rows over all ranks.
        seed: seed of the shuffle.
    """
    order = random.Random(seed).sample(range(episodes), episodes)
    return [index for mini in batches(order, mini_batch_size) for index in mini[rank() :: world_size()]]


def mini_batches(episodes: Episodes, mini_batch_size: int, micro_batch_size: int) -> list[list[list[int]]]:
    """Row numbers of the episodes, split into mini-batches of micro-batches; sizes are per rank.

    The order of the episodes decides which mini-batch they are in. Within a mini-batch the answers are sorted
    by length, to reduce padding.
    """
    split = []
    for rows in batches(list(range(len(episodes.answers))), mini_batch_size):
        rows.sort(key=lambda row: len(episodes.prompts[row]) + len(episodes.answers[row]))
        split.append(batches(rows, micro_batch_size))
    return split


def whiten_advantages(minis: Sequence[Sequence[MicroBatch]]) -> list[list[MicroBatch]]:
    """The same batches, with advantages whitened over all answer tokens of the iteration."""
    flat = [batch for mini in minis for batch in mini]
    whitened = whiten(concatenate(flat, "advantages"), concatenate(flat, "mask"))
    parts = iter(whitened.split([batch.mask.numel() for batch in flat]))
    return [
        [replace(batch, advantages=next(parts).view(batch.mask.shape)) for batch in mini] for mini in minis
    ]


def concatenate(batches: Sequence[MicroBatch], name: str) -> Tensor:
    """A tensor of all micro-batches, flattened, padding included."""
    return torch.cat([getattr(batch, name).flatten() for batch in batches])
