"""The loop of PPO (section 3.2.3): sample, score, estimate advantages, step policy and critic."""

from __future__ import annotations

import copy
import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from transformers import LlamaForCausalLM

from ...distributed.device import device
from ...distributed.group import all_reduce_sum
from ...errors import ConfigError, LlamitaError
from ...model.padding import pad_batch
from ...model.precision import computing_in
from ...model.reward_models import RewardModels
from ...processes import world_size
from ...sampling.generate import sampler_for
from ...sampling.logprobs import gather_logprobs, never_sampled, next_token_distribution
from ...sampling.sampler import Samples
from ...training.engine import Engine
from ...training.permutation import Epochs
from ..prompts import EncodedPrompt
from ..shared_base import AdaptedLanguageModel, whole
from . import losses
from .critic import Critic
from .metrics import Metrics, episode_metrics, largest_over_ranks, model_metrics
from .reward import kl_penalised_reward
from .rollout import Episodes, MicroBatch, mini_batches, rank_share, score_episodes, whiten_advantages
from .settings import PpoSettings

M = TypeVar("M", bound=nn.Module)


class PpoTrainer:
    """Trains a policy with PPO.

    Args:
        policy: trained in place, all of it or its adapter.
        critic: trained in place.
        reward_models: score the answers.
        prompts: sampled from in seeded epochs.
        reference: of the KL penalty, the policy as it begins; a copy of it is made where none is given.

    Raises:
        ConfigError: the mini-batch cannot be shared out among the ranks, or the DeepSpeed file does not suit.
    """

    def __init__(
        self,
        policy: LlamaForCausalLM | AdaptedLanguageModel,
        critic: Critic,
        *,
        reward_models: RewardModels,
        prompts: Sequence[EncodedPrompt],
        settings: PpoSettings,
        reference: AdaptedLanguageModel | None = None,
    ) -> None:
        self.settings, self.seed = settings, f"{settings.seed}/{settings.round}/ppo"
        self._reward_models, self._prompts = reward_models, prompts
        self._order = Epochs(len(prompts), self.seed)
        self._mini, self._micro = rank_sizes(settings)
        self._calibrate_critic = critic.calibrate
        start = copy.deepcopy(policy) if reference is None else reference
        self.policy, self.critic = (
            Engine(
                model,
                rate,
                self._micro,
                accumulation=self._mini // self._micro,
                deepspeed=settings.deepspeed,
                optimizer=settings.optimizer,
            )
            for model, rate in ((policy, settings.learning_rate), (critic, settings.critic_learning_rate))
        )
        self.reference = in_precision_of(policy, start.to(device())).eval().requires_grad_(False)
        plain = settings.deepspeed is None  # otherwise its file decides, by the precision of the weights
        self._dtype = settings.dtype if plain else "float32"
        self._sampler = sampler_for(
            whole(policy), settings.sampling_batch_size, settings.dtype if plain else None
        )
        self._pad = never_sampled(policy.config)

    def save(self, folder: Path) -> None:
        """Writes policy and critic with their optimizers; all draws follow from the iteration's number."""
        for name, engine in self._engines.items():
            (folder / name).mkdir(exist_ok=True)
            engine.save(folder / name)

    def load(self, folder: Path) -> None:
        """Reads what `save` wrote: the next iteration is as it would have been."""
        for name, engine in self._engines.items():
            engine.load(folder / name)

    @property
    def _engines(self) -> dict[str, Engine]:
        return {"policy": self.policy, "critic": self.critic}

    def iterations(self, done: int = 0) -> Iterator[Metrics]:
        """Runs the iterations after the first `done`, yielding the metrics of each (the same on every rank).

        Raises LlamitaError when a loss or a gradient is no longer a finite number.
        """
        for iteration in range(done + 1, self.settings.iterations + 1):
            metrics = self.iterate(iteration)
            watched = [name for name in metrics if name.endswith(("_loss", "_norm"))]
            if broken := [name for name in watched if not math.isfinite(metrics[name])]:
                raise LlamitaError(
                    f"PPO iteration {iteration}: {', '.join(broken)} no longer finite; "
                    "a lower learning_rate or a higher kl_coef usually helps"
                )
            yield metrics

    def iterate(self, iteration: int) -> Metrics:
        """One iteration; in the first `critic_warmup_iterations` the critic learns alone, not clipped."""
        started = time.monotonic()
        prompts, samples = self._sample(iteration)
        episodes = score_episodes(
            prompts,
            samples,
            reward_models=self._reward_models,
            missing_eos_penalty=self.settings.missing_eos_penalty,
        )
        rollout_seconds = time.monotonic() - started
        if iteration == 1:
            self._calibrate_critic(episodes.score)

        minis = self._estimate_advantages(episodes)
        metrics = episode_metrics(episodes) | model_metrics([batch for mini in minis for batch in mini])

        warming = iteration <= self.settings.critic_warmup_iterations
        steps: list[Metrics] = []
        for mini in minis:
            tokens = int(all_reduce_sum(torch.stack([batch.mask.sum() for batch in mini]).sum()))
            policy_step = {} if warming else self._policy_step(mini, tokens)
            steps.append(policy_step | self._value_step(mini, tokens, clipped=not warming))
        if not warming:  # before the first step the policy has not moved: this is the noise of the arithmetic
            metrics["first_ratio_deviation"] = steps[0]["ratio_deviation"]
        metrics |= _means(steps)
        return metrics | {
            "iteration": iteration,
            "rollout_seconds": rollout_seconds,
            "learn_seconds": time.monotonic() - started - rollout_seconds,
            "rollout_tokens_per_second": metrics["answer_length"] * self.settings.episodes / rollout_seconds,
        }

    def _sample(self, iteration: int) -> tuple[list[EncodedPrompt], Samples]:
        """This rank's share of the iteration's prompts, mini-batch by mini-batch, and an answer to each."""
        count, mini = self.settings.episodes, self.settings.mini_batch_size
        share = rank_share(count, mini, f"{self.seed}/mini_batches/{iteration}")
        places = [(iteration - 1) * count + place for place in share]
        prompts = [self._prompts[self._order[place]] for place in places]
        self._sampler.refresh(whole(self.policy.module))
        samples = self._sampler.sample(
            [prompt.ids for prompt in prompts],
            self.settings.max_new_tokens,
            temperature=self.settings.temperature,
            seed=f"{self.seed}/rollout",
            keys=places,
        )
        return prompts, samples

    @torch.no_grad()
    def _estimate_advantages(self, episodes: Episodes) -> list[list[MicroBatch]]:
        """Mini-batches of micro-batches, with old log-probabilities, values, advantages and returns."""
        layout = mini_batches(episodes, self._mini, self._micro)
        return whiten_advantages([[self._micro_batch(episodes, rows) for rows in mini] for mini in layout])

    def _micro_batch(self, episodes: Episodes, rows: Sequence[int]) -> MicroBatch:
        """The forward passes of policy, reference and critic, the KL-penalised rewards, and GAE."""
        ids, mask = pad_batch(
            [episodes.prompts[row] for row in rows], [episodes.answers[row] for row in rows]
        )
        sampled = torch.zeros(mask.shape)
        sampled[mask] = torch.tensor([value for row in rows for value in episodes.logprobs[row]])
        ids, mask, sampled = (table.to(device()) for table in (ids, mask, sampled))
        distribution = self._distribution(self.policy, ids)
        logprobs = gather_logprobs(distribution, ids)
        reference_logprobs = gather_logprobs(self._distribution(self.reference, ids), ids)
        values = self._values(ids)
        rewards = kl_penalised_reward(
            episodes.reward[rows].float().to(device()),
            logprobs,
            reference_logprobs,
            mask=mask,
            coefficient=self.settings.kl_coef,
        )
        advantages, returns = losses.generalised_advantages(
            rewards, values, mask, gamma=self.settings.gamma, lam=self.settings.lam
        )
        return MicroBatch(
            ids=ids,
            mask=mask,
            sampled_logprobs=sampled,
            old_logprobs=logprobs,
            reference_logprobs=reference_logprobs,
            old_values=values,
            advantages=advantages,
            returns=returns,
            entropy=losses.entropy(distribution, mask),
        )

    def _policy_step(self, mini: Sequence[MicroBatch], tokens: int) -> Metrics:
        """One optimizer step on the clipped surrogate; `tokens`: of the mini-batch's answers, all ranks."""
        clip, sums = self.settings.cliprange, _Sums()
        deviation = torch.zeros((), device=device())
        for batch in mini:
            logprobs = gather_logprobs(self._distribution(self.policy, batch.ids), batch.ids)
            loss = losses.policy_loss(
                logprobs,
                batch.old_logprobs,
                batch.advantages,
                mask=batch.mask,
                tokens=tokens,
                cliprange=clip,
            )
            self.policy.backward(loss)
            ratios = losses.log_ratio(logprobs.detach(), batch.old_logprobs, batch.mask)
            sums["policy_loss"] += loss.detach()
            sums["approx_kl"] += losses.approximate_kl(ratios, batch.mask) / tokens
            sums["clip_fraction"] += losses.clipped_tokens(ratios, batch.mask, clip) / tokens
            deviation = torch.maximum(deviation, (ratios.exp() - 1).abs().max())
        norm = self.policy.step()
        return sums.over_ranks() | {
            "policy_gradient_norm": norm,
            "ratio_deviation": largest_over_ranks(deviation),
        }

    def _value_step(self, mini: Sequence[MicroBatch], tokens: int, *, clipped: bool) -> Metrics:
        """One optimizer step of the critic towards the returns; `clipped`: with the value clip."""
        sums = _Sums()
        for batch in mini:
            loss = losses.value_loss(
                self._values(batch.ids),
                batch.old_values,
                batch.returns,
                mask=batch.mask,
                tokens=tokens,
                cliprange=self.settings.cliprange_value if clipped else None,
            )
            self.critic.backward(loss)
            sums["value_loss"] += loss.detach()
        return sums.over_ranks() | {"critic_gradient_norm": self.critic.step()}

    def _distribution(self, model: Callable[..., Any], ids: Tensor) -> Tensor:
        with computing_in(self._dtype, ids.device):
            return next_token_distribution(model, ids, self._pad, temperature=self.settings.temperature)

    def _values(self, ids: Tensor) -> Tensor:
        with computing_in(self._dtype, ids.device):
            values: Tensor = self.critic(ids)
        return values


class _Sums(defaultdict[str, Tensor]):
    """Sums over the micro-batches of a step, on the device; 0 where nothing was added."""

    def __init__(self) -> None:
        super().__init__(lambda: torch.zeros((), device=device()))

    def over_ranks(self) -> Metrics:
        return {name: float(all_reduce_sum(total)) for name, total in self.items()}


def _means(steps: Sequence[Mapping[str, float]]) -> Metrics:
    """The mean over the mini-batches of each of their metrics, but for `ratio_deviation`."""
    names = [name for name in steps[0] if name != "ratio_deviation"]
    return {name: sum(step[name] for step in steps) / len(steps) for name in names}


def in_precision_of(policy: nn.Module, reference: M) -> M:
    """Gives each parameter of `reference` the dtype of the policy's; both then compute the same.

    Buffers keep theirs, as an engine's do: RoPE frequencies in bf16 would turn every key and query.
    """
    for parameter, like in zip(reference.parameters(), policy.parameters(), strict=True):
        parameter.data = parameter.data.to(like.dtype)
    return reference


def rank_sizes(settings: PpoSettings) -> tuple[int, int]:
    """Rows of a mini-batch and of a micro-batch on one rank. Raises ConfigError where none fit."""
    mini, left = divmod(settings.mini_batch_size, world_size())
    micro = settings.micro_batch_size or mini
    if left or mini % micro:
        raise ConfigError(
            f"mini_batch_size: {settings.mini_batch_size} rows cannot be shared out among {world_size()} "
            f"ranks in micro-batches of {micro}; expected a multiple of both"
        )
    return mini, micro
