"""The PPO loop (section 3.2.3): sample, score, estimate advantages, update policy and critic."""

from __future__ import annotations

import copy
import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from transformers import LlamaForCausalLM

from ...distributed.device import device
from ...distributed.group import all_reduce_sum
from ...errors import LlamitaError
from ...model.padding import pad_batch
from ...model.precision import computing_in
from ...model.reward_models import RewardModels
from ...processes import enter_phase
from ...sampling.generate import sampler_for
from ...sampling.logprobs import excluded_pad_id, gather_logprobs, next_token_distribution
from ...sampling.sampler import Samples
from ...sampling.throughput import throughput
from ...training.engine import Engine
from ...training.permutation import Epochs
from ..prompts import EncodedPrompt
from ..shared_base import AdaptedLanguageModel, transformers_model
from . import losses
from .checkpointing import checkpoint_layers
from .critic import Critic
from .metrics import Metrics, PhaseTimer, episode_metrics, max_over_ranks, model_metrics
from .reward import kl_penalised_reward
from .rollout import (
    Episodes,
    MicroBatch,
    mini_batches,
    rank_share,
    score_episodes,
    sizes_per_rank,
    whiten_advantages,
)
from .settings import PpoSettings

M = TypeVar("M", bound=nn.Module)


class PpoTrainer:
    """Trains a policy with PPO.

    Args:
        policy: trained in place, either all its weights or its adapter.
        critic: trained in place.
        reward_models: score the answers.
        prompts: the prompt pool; every epoch goes through it once, in seeded random order.
        reference: reference model of the KL penalty; default: a copy of the initial policy.

    Raises:
        ConfigError: the ranks cannot share a mini-batch evenly, or PPO cannot use the DeepSpeed file.
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
        self._mini, self._micro = sizes_per_rank(settings)
        self._calibrate_critic = critic.calibrate
        initial = copy.deepcopy(policy) if reference is None else reference
        if settings.gradient_checkpointing:
            checkpoint_layers(transformers_model(policy), transformers_model(critic.backbone))
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
        self.reference = match_dtypes(policy, initial.to(device())).eval().requires_grad_(False)
        plain = settings.deepspeed is None  # with DeepSpeed the precision is that of its file
        self._dtype = settings.dtype if plain else "float32"
        self._sampler = sampler_for(
            transformers_model(policy), settings.sampling_batch_size, settings.dtype if plain else None
        )
        self._pad = excluded_pad_id(policy.config)

    def save(self, folder: Path) -> None:
        """Writes policy and critic with their optimizers; draws depend on the iteration's number alone."""
        for name, engine in self._engines.items():
            (folder / name).mkdir(exist_ok=True)
            engine.save(folder / name)

    def load(self, folder: Path) -> None:
        """Reads what `save` wrote; the next iteration equals that of an uninterrupted run."""
        for name, engine in self._engines.items():
            engine.load(folder / name)

    @property
    def _engines(self) -> dict[str, Engine]:
        return {"policy": self.policy, "critic": self.critic}

    def iterations(self, done: int = 0) -> Iterator[Metrics]:
        """Runs the iterations after the first `done` and yields the metrics of each.

        Metrics are the same on every rank, except times and speeds.
        Raises LlamitaError if a loss or a gradient norm is NaN or infinite.
        """
        for iteration in range(done + 1, self.settings.iterations + 1):
            enter_phase("training", iteration)
            metrics = self.iterate(iteration)
            checked = [name for name in metrics if name.endswith(("_loss", "_norm"))]
            if diverged := [name for name in checked if not math.isfinite(metrics[name])]:
                raise LlamitaError(
                    f"PPO iteration {iteration}: NaN or infinite {', '.join(diverged)}; "
                    "try a lower learning_rate or a higher kl_coef"
                )
            yield metrics

    def iterate(self, iteration: int) -> Metrics:
        """One iteration: sample, score, estimate advantages, then one step of each model per mini-batch.

        In the first `critic_warmup_iterations` only the critic is trained, without clipping its loss.
        """
        timer = PhaseTimer()
        prompts, samples = self._sample(iteration)
        sampling_seconds = timer.end("sampling")
        episodes = score_episodes(
            prompts,
            samples,
            reward_models=self._reward_models,
            missing_eos_penalty=self.settings.missing_eos_penalty,
        )
        timer.end("scoring")
        if iteration == 1:
            self._calibrate_critic(episodes.score)
        minis = self._estimate_advantages(episodes)
        metrics = episode_metrics(episodes) | model_metrics([batch for mini in minis for batch in mini])
        timer.end("advantages")

        warming_up = iteration <= self.settings.critic_warmup_iterations
        steps: list[Metrics] = []
        for mini in minis:
            tokens = int(all_reduce_sum(torch.stack([batch.mask.sum() for batch in mini]).sum()))
            policy_step = {} if warming_up else self._policy_step(mini, tokens)
            steps.append(policy_step | self._value_step(mini, tokens, clipped=not warming_up))
        timer.end("update")
        if not warming_up:  # before its first step the policy is unchanged: this deviation is rounding error
            metrics["first_ratio_deviation"] = steps[0]["ratio_deviation"]
        metrics |= _means(steps)
        answers = self.settings.episodes
        speed = throughput(answers, answers * metrics["answer_length"], sampling_seconds)
        return {f"ppo/{name}": value for name, value in metrics.items()} | speed | timer.seconds

    def _sample(self, iteration: int) -> tuple[list[EncodedPrompt], Samples]:
        """This rank's prompts of the iteration, mini-batch after mini-batch, and one answer to each."""
        count, mini = self.settings.episodes, self.settings.mini_batch_size
        share = rank_share(count, mini, f"{self.seed}/mini_batches/{iteration}")
        places = [(iteration - 1) * count + place for place in share]  # in the sequence of all iterations
        prompts = [self._prompts[self._order[place]] for place in places]
        self._sampler.refresh(transformers_model(self.policy.module))
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
        """Mini-batches of micro-batches, with old logprobs, old values, whitened advantages, and returns."""
        layout = mini_batches(episodes, self._mini, self._micro)
        return whiten_advantages([[self._micro_batch(episodes, rows) for rows in mini] for mini in layout])

    def _micro_batch(self, episodes: Episodes, rows: Sequence[int]) -> MicroBatch:
        """Forward passes of policy, reference and critic; KL-penalised rewards, advantages, returns."""
        ids, mask = pad_batch(
            [episodes.prompts[row] for row in rows], [episodes.answers[row] for row in rows]
        )
        sampled = torch.zeros(mask.shape)
        sampled[mask] = torch.tensor([value for row in rows for value in episodes.logprobs[row]])
        ids, mask, sampled = (tensor.to(device()) for tensor in (ids, mask, sampled))
        distribution = self._distribution(self.policy, ids)
        logprobs = gather_logprobs(distribution, ids)
        ref_logprobs = gather_logprobs(self._distribution(self.reference, ids), ids)
        values = self._values(ids)
        rewards = kl_penalised_reward(
            episodes.whitened_reward[rows].float().to(device()),
            logprobs,
            ref_logprobs,
            mask=mask,
            kl_coef=self.settings.kl_coef,
        )
        advantages, returns = losses.generalised_advantages(
            rewards, values, mask, gamma=self.settings.gamma, lam=self.settings.lam
        )
        return MicroBatch(
            ids=ids,
            mask=mask,
            sampled_logprobs=sampled,
            old_logprobs=logprobs,
            ref_logprobs=ref_logprobs,
            old_values=values,
            advantages=advantages,
            returns=returns,
            entropy=losses.entropy(distribution, mask),
        )

    def _policy_step(self, mini: Sequence[MicroBatch], tokens: int) -> Metrics:
        """One optimizer step of the policy; `tokens`: answer tokens of the mini-batch, all ranks."""
        cliprange, sums = self.settings.cliprange, _Sums()
        deviation = torch.zeros((), device=device())
        for batch in mini:
            logprobs = gather_logprobs(self._distribution(self.policy, batch.ids), batch.ids)
            loss = losses.policy_loss(
                logprobs,
                batch.old_logprobs,
                batch.advantages,
                mask=batch.mask,
                tokens=tokens,
                cliprange=cliprange,
            )
            self.policy.backward(loss)
            log_ratios = losses.log_ratio(logprobs.detach(), batch.old_logprobs, batch.mask)
            sums["policy_loss"] += loss.detach()
            sums["approx_kl"] += losses.approximate_kl(log_ratios, batch.mask) / tokens
            sums["clip_fraction"] += losses.clipped_tokens(log_ratios, batch.mask, cliprange) / tokens
            deviation = torch.maximum(deviation, (log_ratios.exp() - 1).abs().max())
        norm = self.policy.step()
        return sums.over_ranks() | {
            "policy_gradient_norm": norm,
            "ratio_deviation": max_over_ranks(deviation),
        }

    def _value_step(self, mini: Sequence[MicroBatch], tokens: int, *, clipped: bool) -> Metrics:
        """One optimizer step of the critic; `clipped`: whether the value loss is clipped."""
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
    """Sums over the micro-batches of a step, on the device; a new name starts at 0."""

    def __init__(self) -> None:
        super().__init__(lambda: torch.zeros((), device=device()))

    def over_ranks(self) -> Metrics:
        return {name: float(all_reduce_sum(total)) for name, total in self.items()}


def _means(steps: Sequence[Mapping[str, float]]) -> Metrics:
    """The mean of each metric over the mini-batches, without `ratio_deviation`."""
    names = [name for name in steps[0] if name != "ratio_deviation"]
    return {name: sum(step[name] for step in steps) / len(steps) for name in names}


def match_dtypes(policy: nn.Module, reference: M) -> M:
    """Converts each parameter of `reference` to the dtype of the policy's, so that both compute the same.

    Buffers keep their dtype, as in a DeepSpeed engine: RoPE frequencies rounded to bf16 would change every
    key and query.
    """
    for parameter, policy_parameter in zip(reference.parameters(), policy.parameters(), strict=True):
        parameter.data = parameter.data.to(policy_parameter.dtype)
    return reference
