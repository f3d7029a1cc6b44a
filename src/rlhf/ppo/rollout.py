"""The rollout of a PPO iteration: answers with their scores and rewards, and their split into batches."""

from __future__ import annotations

import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from ...batches import batches, batches_by_length
from ...data.rows import Context
from ...distributed.group import all_reduce_max, all_reduce_sum
from ...errors import ConfigError
from ...model.reward_models import RewardModels
from ...processes import rank, world_size
from ...sampling.interface import Samples
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
        places: `[answer tokens]` int64, indices of the True entries in the flattened mask.
        sampled_logprobs: `[rows, time]` fp32, as reported by the sampler.
        old_logprobs, ref_logprobs: `[rows, time]` fp32, of the policy and of the reference.
        old_values, advantages, returns: `[rows, time]` fp32.
        entropy: entropy of the policy in nats, summed over the answer tokens; a scalar.
    """

    ids: Tensor
    mask: Tensor
    places: Tensor
    sampled_logprobs: Tensor
    old_logprobs: Tensor
    ref_logprobs: Tensor
    old_values: Tensor
    advantages: Tensor
    returns: Tensor
    entropy: Tensor


class RankSizes(NamedTuple):
    """Sizes on one rank.

    Attributes:
        mini: rows of a mini-batch.
        micro: maximum number of rows of a micro-batch.
        tokens: maximum number of tokens of a micro-batch, padding included; None: no limit.
    """

    mini: int
    micro: int
    tokens: int | None

    @property
    def accumulates(self) -> bool:
        """Whether a mini-batch may have several micro-batches."""
        return self.mini > self.micro or self.tokens is not None


def sizes_per_rank(settings: PpoSettings) -> RankSizes:
    """Sizes of batches on one rank. Raises ConfigError if the ranks cannot share a mini-batch evenly."""
    if problem := settings.problem_with_ranks(world_size()):
        raise ConfigError(problem)
    mini = settings.mini_batch_size // world_size()
    return RankSizes(mini, settings.micro_batch_size or mini, settings.max_tokens_per_micro_batch)


def check_longest_prompt(settings: PpoSettings, prompts: Sequence[EncodedPrompt]) -> None:
    """Raises ConfigError if an answer to the longest prompt could exceed the tokens of a micro-batch."""
    limit = settings.max_tokens_per_micro_batch
    prompt = max(len(prompt.ids) for prompt in prompts)
    if limit is not None and limit < prompt + settings.max_new_tokens:
        raise ConfigError(
            f"max_tokens_per_micro_batch {limit} is less than the longest prompt's {prompt} tokens and "
            f"max_new_tokens {settings.max_new_tokens}; choose at least {prompt + settings.max_new_tokens}, "
            "or skip long prompts with max_prompt_length"
        )


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


def mini_batches(episodes: Episodes, sizes: RankSizes) -> list[list[list[int]]]:
    """Row numbers of the episodes, split into mini-batches of micro-batches.

    The order of the episodes decides which mini-batch they are in. Within a mini-batch the answers are sorted
    by length, to reduce padding. A mini-batch has the same number of micro-batches on all ranks, since their
    passes may contain collectives. Every rank calls it.
    """
    lengths = [len(ids) + len(answer) for ids, answer in zip(episodes.prompts, episodes.answers, strict=True)]
    split = []
    for rows in batches(list(range(len(lengths))), sizes.mini):
        parts = batches_by_length([lengths[row] for row in rows], sizes.micro, sizes.tokens or sys.maxsize)
        split.append([[rows[place] for place in part] for part in parts])
    counts = all_reduce_max(torch.tensor([len(parts) for parts in split])).tolist()
    return [_split_to(parts, count, lengths) for parts, count in zip(split, counts, strict=True)]


def _split_to(parts: list[list[int]], count: int, lengths: Sequence[int]) -> list[list[int]]:
    """The parts, of which the ones with the most tokens are halved until there are `count`."""
    parts = list(parts)
    while len(parts) < count:
        sizes = [len(part) * max(lengths[row] for row in part) * (len(part) > 1) for part in parts]
        place = sizes.index(max(sizes))
        part = parts[place]
        parts[place : place + 1] = part[: len(part) // 2], part[len(part) // 2 :]
    return parts


def answer_tokens(episodes: Episodes, mini_batch_size: int) -> list[int]:
    """Number of answer tokens in each mini-batch over all ranks; `mini_batch_size`: rows on one rank."""
    lengths = batches([len(answer) for answer in episodes.answers], mini_batch_size)
    counts: list[int] = all_reduce_sum(torch.tensor([sum(mini) for mini in lengths])).tolist()
    return counts


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
