"""A rehearsal of the longest iteration before the first real one: memory runs out at once or never."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import cycle, islice
from typing import Any, cast

import torch
from torch import Tensor

from ...console import say
from ...distributed.device import device
from ...distributed.group import all_reduce_max
from ...processes import enter_phase, world_size
from ...sampling.interface import Samples
from ...training.engine import Engine
from ..prompts import EncodedPrompt
from .out_of_memory import GIB, explained
from .rollout import answer_tokens
from .trainer import PpoTrainer


def is_due() -> bool:
    """Whether a stage rehearses: on GPUs; on a CPU it would only take time."""
    return device().type == "cuda"


def rehearse(trainer: PpoTrainer) -> None:
    """Runs an iteration with the longest prompts and answers, but discards its gradients.

    All ranks have the longest prompts of the pool, and all answers have `max_new_tokens`. The sampler
    reserves its cache for that many tokens in advance, so it samples as usual; its answers are then extended
    with a token of the prompt. One mini-batch goes through the backward passes of critic and policy. All of
    it runs beside the memory of Adam's moments that the first steps will allocate. It changes no weights, no
    optimizer and no random numbers, and logs no metrics.

    Not rehearsed: the temporary memory of the optimizer's step, when the activations are freed already.

    Raises LlamitaError if memory runs out.
    """
    enter_phase("rehearsal")
    if on_gpu := device().type == "cuda":
        torch.cuda.reset_peak_memory_stats(device())
    prompts = longest(trainer.prompts, trainer.settings.episodes // world_size())
    with explained(trainer.settings, "the rehearsal of PPO's longest iteration"), _without_steps(trainer):
        reserved = [_reserve(engine) for engine in (trainer.policy, trainer.critic)]
        samples = trainer.sample(prompts, "rehearsal", keys=range(len(prompts)), version=0)
        samples = extended(samples, prompts, trainer.settings.max_new_tokens)
        episodes = trainer.score(prompts, samples)
        first = trainer.layout(episodes)[:1]  # the mini-batch with the longest prompts
        tokens = answer_tokens(episodes, trainer.sizes.mini)
        (mini,) = trainer.first_passes(episodes, first)
        trainer.update(mini, tokens[0], warming_up=False)
        del reserved
    if on_gpu:
        peak = int(all_reduce_max(torch.tensor(torch.cuda.max_memory_allocated(device()))))
        total = torch.cuda.get_device_properties(device()).total_memory
        say(
            f"PPO: an iteration with the longest prompts and answers needs {peak / GIB:.1f} of "
            f"{total / GIB:.1f} GiB on a GPU"
        )


def longest(prompts: Sequence[EncodedPrompt], count: int) -> list[EncodedPrompt]:
    """The `count` longest prompts, the longest first; repeated if there are fewer prompts."""
    ordered = sorted(prompts, key=lambda prompt: len(prompt.ids), reverse=True)
    return list(islice(cycle(ordered), count))


def extended(samples: Samples, prompts: Sequence[EncodedPrompt], tokens: int) -> Samples:
    """The same answers, extended to `tokens` tokens each with the last token of their prompt."""
    missing = [tokens - len(answer) for answer in samples.answer_ids]
    return replace(
        samples,
        answer_ids=[
            [*answer, *[prompts[index].ids[-1]] * count]
            for answer, index, count in zip(samples.answer_ids, samples.prompts, missing, strict=True)
        ],
        logprobs=[
            [*logprobs, *[0.0] * count] for logprobs, count in zip(samples.logprobs, missing, strict=True)
        ],
        finished=[False] * len(samples),
    )


def _reserve(engine: Engine) -> Tensor:
    return torch.empty(engine.unallocated_state, dtype=torch.uint8, device=device())


@contextmanager
def _without_steps(trainer: PpoTrainer) -> Iterator[None]:
    """Context in which the steps of both engines only discard the gradients."""
    engines = trainer.policy, trainer.critic
    trainer.policy, trainer.critic = (cast(Engine, _WithoutSteps(engine)) for engine in engines)
    try:
        yield
    finally:
        trainer.policy, trainer.critic = engines


class _WithoutSteps:
    """An engine whose `step` discards the gradients and returns the norm 0."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def step(self) -> float:
        self._engine.discard_gradients()
        return 0.0
