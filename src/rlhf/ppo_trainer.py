"""The loop of PPO (section 3.2.3): sample, judge, learn. Where the paper is silent, the field's habits:

- The critic is a model of its own, started from the helpfulness reward model and brought to the scale of the
  first batch's rewards, with its own learning rate; it learns alone for the first iterations.
- Dropout is off; one temperature for sampling and for every log-probability; no top-k or top-p.
- The old log-probabilities come from the trainer's own forward pass; how far the sampler's are from them is
  logged as `sampler_deviation`.
- The KL penalty is to the model that PPO starts from, token by token inside the reward.
- Rewards and advantages are whitened over the whole batch of an iteration, all ranks together.
"""

from __future__ import annotations

import copy
import math
import random
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from transformers import LlamaForCausalLM

from ..distributed.device import device
from ..distributed.group import all_reduce_sum
from ..errors import ConfigError, LlamitaError
from ..model.precision import computing_in
from ..processes import world_size
from ..sampling.generate import sampler_for
from ..sampling.logprobs import never_sampled, next_token_distribution, of_tokens
from ..training.engine import Engine
from ..training.settings import PAPER_OPTIMIZER
from . import ppo
from .critic import Critic
from .ppo_metrics import Metrics, drift_metrics, joined, largest_over_ranks, per_token, reward_metrics
from .reward import kl_penalised_reward, whiten
from .rollout import EncodedPrompt, Episodes, MicroBatch, Scores, judge, mini_batches, rank_share
from .settings import PpoSettings
from .trunk import AdaptedLanguageModel, whole

M = TypeVar("M", bound=nn.Module)


class PpoTrainer:
    """Trains a policy with PPO.

    Args:
        policy: trained in place, all of it or its adapter.
        critic: trained in place.
        safety, helpfulness: see `Scorer`.
        prompts: sampled from in seeded epochs.
        max_new_tokens: length limit of an answer, EOS included.
        safety_threshold: of the piecewise reward.
        seed: names all draws.
        sampling_batch_size: answers sampled side by side.
        deepspeed: path of a ZeRO-0/1/2 file.
        reference: of the KL penalty, the policy as it begins; a copy of it is made where none is given.
        dtype: precision that is sampled and computed in; a DeepSpeed file has its own.
        optimizer: of both models, see `Engine`.

    Raises:
        ConfigError: the mini-batch cannot be shared out among the ranks, or the DeepSpeed file does not suit.
    """

    def __init__(
        self,
        policy: LlamaForCausalLM | AdaptedLanguageModel,
        critic: Critic,
        *,
        safety: Scores,
        helpfulness: Scores,
        prompts: Sequence[EncodedPrompt],
        settings: PpoSettings,
        max_new_tokens: int,
        safety_threshold: float = 0.15,
        seed: int | str = 0,
        sampling_batch_size: int = 512,
        deepspeed: str | None = None,
        reference: AdaptedLanguageModel | None = None,
        dtype: str = "float32",
        optimizer: Mapping[str, Any] = PAPER_OPTIMIZER,
    ) -> None:
        self.settings, self.seed, self.deepspeed = settings, seed, deepspeed
        self._scorers = {"safety": safety, "helpfulness": helpfulness}
        self._prompts, self._max_new_tokens, self._threshold = prompts, max_new_tokens, safety_threshold
        self._mini, self._micro = rank_sizes(settings)
        accumulation = self._mini // self._micro
        self._calibrate_critic = critic.calibrate
        start = copy.deepcopy(policy) if reference is None else reference
        self.policy, self.critic = (
            Engine(
                model, rate, self._micro, accumulation=accumulation, deepspeed=deepspeed, optimizer=optimizer
            )
            for model, rate in ((policy, settings.learning_rate), (critic, settings.critic_learning_rate))
        )
        self.reference = in_precision_of(policy, start.to(device())).eval().requires_grad_(False)
        plain = deepspeed is None
        self._dtype = dtype if plain else "float32"  # in the precision of the weights
        self._sampler = sampler_for(whole(policy), sampling_batch_size, dtype if plain else None)
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
                    "a lower ppo.learning_rate or a higher ppo.kl_coefficient usually helps"
                )
            yield metrics

    def iterate(self, iteration: int) -> Metrics:
        """Samples `episodes` answers, then steps once per mini-batch with each of the two models."""
        started = time.monotonic()
        episodes = self._roll_out(iteration)
        sampled = time.monotonic()
        if iteration == 1:
            self._calibrate_critic(episodes.score)
        batches = mini_batches(episodes, self._mini, self._micro, device())
        metrics = self._look(episodes, [batch for mini in batches for batch in mini])
        metrics |= self._learn(iteration, batches)
        rollout_seconds = sampled - started
        return metrics | {
            "iteration": iteration,
            "rollout_seconds": rollout_seconds,
            "learn_seconds": time.monotonic() - sampled,
            "rollout_tokens_per_second": metrics["answer_length"] * self.settings.episodes / rollout_seconds,
        }

    def _roll_out(self, iteration: int) -> Episodes:
        """Samples and judges this rank's share of the iteration's prompts, in the order of mini-batches."""
        count, mini = self.settings.episodes, self.settings.mini_batch_size
        share = rank_share(count, mini, f"{self.seed}/mini_batches/{iteration}")
        places = [(iteration - 1) * count + place for place in share]
        prompts = [self._prompts[index] for index in _in_epochs(places, len(self._prompts), self.seed)]
        self._sampler.refresh(whole(self.policy.module))
        samples = self._sampler.sample(
            [prompt.ids for prompt in prompts],
            self._max_new_tokens,
            temperature=self.settings.temperature,
            seed=f"{self.seed}/rollout",
            keys=places,
        )
        return judge(
            prompts,
            samples,
            **self._scorers,
            safety_threshold=self._threshold,
            missing_eos_penalty=self.settings.missing_eos_penalty,
        )

    @torch.no_grad()
    def _look(self, episodes: Episodes, batches: Sequence[MicroBatch]) -> Metrics:
        """What policy, reference and critic say of the answers before any of them learns."""
        entropy = torch.zeros((), device=device())
        for batch in batches:
            distribution = self._distribution(self.policy, batch.ids)
            entropy += ppo.entropy(distribution, batch.mask)
            batch.old_logprobs = of_tokens(distribution, batch.ids)
            batch.reference_logprobs = of_tokens(self._distribution(self.reference, batch.ids), batch.ids)
            batch.old_values = self._values(batch.ids)
            self._estimate_advantages(batch)
        mask = joined(batches, "mask")
        whitened = whiten(joined(batches, "advantages"), mask)
        sizes = [batch.mask.numel() for batch in batches]
        for batch, advantages in zip(batches, whitened.split(sizes), strict=True):
            batch.advantages = advantages.view(batch.mask.shape)
        return reward_metrics(episodes) | drift_metrics(batches) | {"entropy": per_token(entropy, mask)}

    def _estimate_advantages(self, batch: MicroBatch) -> None:
        rewards = kl_penalised_reward(
            batch.reward,
            batch.old_logprobs,
            batch.reference_logprobs,
            batch.mask,
            self.settings.kl_coefficient,
        )
        batch.advantages, batch.returns = ppo.generalised_advantages(
            rewards, batch.old_values, batch.mask, self.settings.gamma, self.settings.gae_lambda
        )

    def _distribution(self, model: Callable[..., Any], ids: Tensor) -> Tensor:
        with computing_in(self._dtype, ids.device):
            return next_token_distribution(model, ids, self._pad, temperature=self.settings.temperature)

    def _values(self, ids: Tensor) -> Tensor:
        with computing_in(self._dtype, ids.device):
            values: Tensor = self.critic(ids)
        return values

    def _learn(self, iteration: int, batches: Sequence[Sequence[MicroBatch]]) -> Metrics:
        """A step per mini-batch; in the warm-up iterations the critic's alone, not clipped."""
        warming = iteration <= self.settings.critic_warmup_iterations
        clip = None if warming else self.settings.value_clip_threshold
        metrics: Metrics = defaultdict(float)
        for index, mini in enumerate(batches):
            tokens = int(all_reduce_sum(torch.stack([batch.mask.sum() for batch in mini]).sum()))
            sums: dict[str, Tensor] = defaultdict(lambda: torch.zeros((), device=device()))
            if not warming:
                norm = self.policy.update(self._policy_loss(batch, tokens, sums) for batch in mini)
                metrics["policy_gradient_norm"] += norm / len(batches)
                deviation = largest_over_ranks(sums.pop("ratio_deviation"))
                if index == 0:  # the policy has not moved yet: this is the noise of the arithmetic
                    metrics["first_ratio_deviation"] = deviation
            norm = self.critic.update(self._value_loss(batch, tokens, clip, sums) for batch in mini)
            metrics["critic_gradient_norm"] += norm / len(batches)
            for name, total in sums.items():
                metrics[name] += float(all_reduce_sum(total)) / len(batches)
        return dict(metrics)

    def _policy_loss(self, batch: MicroBatch, tokens: int, sums: dict[str, Tensor]) -> Tensor:
        threshold = self.settings.clip_threshold
        logprobs = of_tokens(self._distribution(self.policy, batch.ids), batch.ids)
        loss = ppo.policy_loss(logprobs, batch.old_logprobs, batch.advantages, batch.mask, tokens, threshold)
        ratios = ppo.log_ratio(logprobs.detach(), batch.old_logprobs, batch.mask)
        sums["policy_loss"] += loss.detach()
        sums["approx_kl"] += ppo.approximate_kl(ratios, batch.mask) / tokens
        sums["clip_fraction"] += ppo.clipped_tokens(ratios, batch.mask, threshold) / tokens
        sums["ratio_deviation"] = torch.maximum(sums["ratio_deviation"], (ratios.exp() - 1).abs().max())
        return loss

    def _value_loss(
        self, batch: MicroBatch, tokens: int, clip: float | None, sums: dict[str, Tensor]
    ) -> Tensor:
        values = self._values(batch.ids)
        loss = ppo.value_loss(values, batch.old_values, batch.returns, batch.mask, tokens, clip)
        sums["value_loss"] += loss.detach()
        return loss


def in_precision_of(policy: nn.Module, reference: M) -> M:
    """Gives each parameter of `reference` the dtype of the policy's; both then compute the same.

    Buffers keep theirs, as an engine's do: RoPE frequencies in bf16 would turn every key and query.
    """
    for parameter, like in zip(reference.parameters(), policy.parameters(), strict=True):
        parameter.data = parameter.data.to(like.dtype)
    return reference


def _in_epochs(places: Sequence[int], count: int, seed: int | str) -> list[int]:
    """The items at the given places of an endless row of epochs, each a seeded shuffle of `count` items."""
    orders: dict[int, list[int]] = {}
    for epoch in {place // count for place in places}:
        orders[epoch] = random.Random(f"{seed}/epoch/{epoch}").sample(range(count), count)
    return [orders[place // count][place % count] for place in places]


def rank_sizes(settings: PpoSettings) -> tuple[int, int]:
    """Rows of a mini-batch and of a micro-batch on one rank. Raises ConfigError where none fit."""
    mini, left = divmod(settings.mini_batch_size, world_size())
    micro = settings.micro_batch_size or mini
    if left or mini % micro:
        raise ConfigError(
            f"ppo.mini_batch_size: {settings.mini_batch_size} rows cannot be shared out among {world_size()} "
            f"ranks in micro-batches of {micro}; expected a multiple of both"
        )
    return mini, micro
