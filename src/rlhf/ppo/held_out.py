"""Held-out prompts of PPO: their choice, and the evaluation of a version of the policy on them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean
from typing import TYPE_CHECKING, NamedTuple

from ...console import say
from ...data.held_out import opening, split_held_out
from ...data.intake import Intake
from ...distributed.group import gather_rows
from ...errors import DataError
from ...processes import rank, world_size
from ..prompts import EncodedPrompt

if TYPE_CHECKING:
    from .trainer import PpoTrainer


REPEATED = "a held-out prompt is one of its earlier turns"


def hold_out(
    pool: Sequence[EncodedPrompt], count: int | None, seed: int, *, intake: Intake
) -> tuple[list[EncodedPrompt], list[EncodedPrompt]]:
    """Splits the pool into training prompts and held-out ones, both in the order of the pool.

    Ordinary and adversarial prompts are held out in the proportion of the pool, at least one of each kind.
    Prompts with the same messages up to the first user message are all held out or all trained on. There may
    therefore be more than `count` held-out prompts. A prompt with a held-out one and its reference answer
    among its earlier turns, as `multi_turn_share` adds them, is in neither part, and counted in `intake`. A
    held-out prompt may follow one that is trained on: its own answer is measured.

    Args:
        count: number of prompts to hold out, at least 2; None: none.
        seed: decides, with the prompts' messages, which prompts are held out.

    Raises:
        DataError: no prompts would be left for training.
    """
    if count is None:
        return list(pool), []
    kinds = [[prompt for prompt in pool if prompt.prompt.is_safety is kind] for kind in (False, True)]
    held: set[str] = set()
    for prompts in filter(None, kinds):
        share = max(1, round(count * len(prompts) / len(pool)))
        held.update(map(_key, split_held_out(prompts, share, seed, key=_key)[1]))
    held_out = [prompt for prompt in pool if _key(prompt) in held]
    others = [prompt for prompt in pool if _key(prompt) not in held]
    answered = {(prompt.prompt.messages[-1]["content"], prompt.prompt.answer) for prompt in held_out}
    training = [prompt for prompt in others if answered.isdisjoint(_earlier_turns(prompt))]
    if repeated := len(others) - len(training):
        say(f"{repeated:,} prompts skipped: {REPEATED}")
        intake.skipped[REPEATED] += repeated
    if not training:
        raise DataError(
            f"held_out: {count} of {len(pool)} prompts leave none to train on; lower held_out or add prompts"
        )
    return training, held_out


def _earlier_turns(prompt: EncodedPrompt) -> Iterator[tuple[str, str]]:
    """Yields the earlier user messages with their answers."""
    messages = prompt.prompt.messages
    for message, answer in pairwise(messages):
        if message["role"] == "user":
            yield message["content"], answer["content"]


def _key(prompt: EncodedPrompt) -> str:
    return opening(prompt.prompt)


class Answer(NamedTuple):
    """What is measured of one answer to a held-out prompt.

    Attributes:
        reward: piecewise score Rc, in (0, 1).
        kl: sum of the log-ratios of the policy to the reference over the answer's tokens, in nats.
        tokens: length of the answer, EOS included.
        truncated: whether it was truncated at `max_new_tokens`.
    """

    reward: float
    kl: float
    tokens: int
    truncated: bool


@dataclass(frozen=True)
class Evaluation:
    """One answer to each held-out prompt, in the order of the prompts; the same on every rank."""

    answers: list[Answer]

    @property
    def rewards(self) -> list[float]:
        return [answer.reward for answer in self.answers]

    @property
    def kl(self) -> float:
        """KL to the reference in nats per answer."""
        return fmean(answer.kl for answer in self.answers)

    def metrics(self) -> dict[str, float]:
        """Means over the prompts, by the names of `metrics.jsonl`."""
        return {
            "eval/reward": fmean(self.rewards),
            "eval/kl": self.kl,
            "eval/answer_length": fmean(answer.tokens for answer in self.answers),
            "eval/truncated_share": fmean(answer.truncated for answer in self.answers),
        }


def evaluate(trainer: PpoTrainer, prompts: Sequence[EncodedPrompt], version: int) -> Evaluation:
    """Samples and scores one answer to each prompt; every rank calls it with all prompts and takes a share.

    The random numbers of an answer depend on the prompt's place alone, so two versions of the policy answer
    with the same draws and their rewards can be compared prompt by prompt. `version`: number of iterations
    after which the policy has its weights.
    """
    places = _share(len(prompts))
    samples = trainer.sample([prompts[place] for place in places], "held_out", keys=places, version=version)
    episodes = trainer.score([prompts[place] for place in places], samples)
    kl: dict[int, float] = {}
    layout = trainer.layout(episodes)
    for mini, batches in zip(layout, trainer.first_passes(episodes, layout), strict=True):
        for rows, batch in zip(mini, batches, strict=True):
            log_ratios = (batch.old_logprobs - batch.ref_logprobs).masked_fill(~batch.mask, 0.0)
            kl |= zip(rows, log_ratios.double().sum(1).tolist(), strict=True)
    answers = {
        place: Answer(reward, kl[row], len(episodes.answers[row]), truncated=not samples.finished[row])
        for row, (place, reward) in enumerate(zip(places, episodes.score.tolist(), strict=True))
    }
    by_place = dict(gather_rows(list(answers.items())))
    return Evaluation([by_place[place] for place in range(len(prompts))])


def _share(prompts: int) -> list[int]:
    """The places that this rank evaluates: equally many on each rank, so that some may be evaluated twice.

    Under ZeRO-3 every rank has to make the same number of forward passes.
    """
    ranks = world_size()
    return [place % prompts for place in range(rank(), -(-prompts // ranks) * ranks, ranks)]
