"""The PPO loop (section 3.2.3): sample, score, estimate advantages, update policy and critic."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from ...artifact import write_json
from ...errors import LlamitaError
from ...model.reward_models import RewardModels, safety_branch
from ...processes import enter_phase, is_main_process, phase, world_size
from ...sampling.interface import Sampler, Samples
from ...sampling.throughput import throughput
from ...training.engine import Engine
from ...training.permutation import Epochs
from ..prompts import EncodedPrompt
from ..shared_base import transformers_model
from .checkpointing import checkpoint_layers
from .diagnostics import advantage_metrics, check_sampler
from .loading import ENGINES, EngineConfigs, Models, frozen_reference, precision_of
from .metrics import Metrics, PhaseTimer, episode_metrics, model_metrics
from .out_of_memory import SAMPLING
from .passes import Passes
from .policy import Policy
from .rollout import (
    Episodes,
    MicroBatch,
    answer_tokens,
    mini_batches,
    rank_share,
    score_episodes,
    sizes_per_rank,
    whiten_advantages,
)
from .settings import PpoSettings
from .updates import Totals, over_ranks, policy_step, value_step

PLAIN = EngineConfigs()


class PpoTrainer:
    """Trains a policy with PPO.

    Args:
        models: policy and critic, which are trained in place: all their weights or their adapters; and the
            reference of the KL penalty.
        sampler: samples the answers of the policy.
        reward_models: score the answers.
        prompts: the prompt pool; every epoch goes through it once, in seeded random order.
        configs: settings of the engines of policy and critic.

    Raises:
        ConfigError: the ranks cannot share a mini-batch evenly.
    """

    def __init__(
        self,
        models: Models,
        *,
        sampler: Sampler,
        reward_models: RewardModels,
        prompts: Sequence[EncodedPrompt],
        settings: PpoSettings,
        configs: EngineConfigs = PLAIN,
    ) -> None:
        self.settings, self.seed = settings, f"{settings.seed}/{settings.round}/ppo"
        self._sampler, self._reward_models, self.prompts = sampler, reward_models, prompts
        self._order = Epochs(len(prompts), self.seed)
        self.sizes = sizes_per_rank(settings)
        policy, critic, reference = models
        self._calibrate_critic = critic.calibrate
        if settings.gradient_checkpointing:
            checkpoint_layers(transformers_model(policy), transformers_model(critic.backbone))
        self.policy = Engine(
            Policy(policy, settings.temperature),
            settings.learning_rate,
            deepspeed=configs.policy,
            optimizer=settings.optimizer,
        )
        self.critic = Engine(
            critic, settings.critic_learning_rate, deepspeed=configs.critic, optimizer=settings.optimizer
        )
        # with DeepSpeed the precision is that of its file
        dtype = settings.dtype if configs.policy is None else "float32"
        self._precision = settings.dtype if configs.policy is None else precision_of(configs.policy)
        self.reference = frozen_reference(reference, policy, settings, dtype=dtype)
        self._passes = Passes(
            self.policy,
            self.reference,
            self.critic,
            settings=settings,
            dtype=dtype,
        )

    def save(self, folder: Path) -> None:
        """Writes policy and critic with their optimizers; draws depend on the iteration's number alone."""
        for name, engine in self._engines.items():
            (folder / name).mkdir(exist_ok=True)
            engine.save(folder / name)
        if is_main_process():
            stages = {name: engine.zero_stage for name, engine in self._engines.items()}
            write_json(folder / ENGINES, {"ranks": world_size(), "zero_stages": stages})

    def load(self, folder: Path) -> None:
        """Reads what `save` wrote; the next iteration equals that of an uninterrupted run.

        On another number of ranks or with other ZeRO stages `fit_checkpoint` must precede the constructor.
        """
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
        places = self._places(iteration)
        prompts = [self.prompts[self._order[place]] for place in places]
        samples = self.sample(prompts, "rollout", keys=places, version=iteration - 1)
        sampling_seconds = timer.end("sampling")
        episodes = self.score(prompts, samples)
        timer.end("scoring")
        if iteration == 1:
            self._calibrate_critic(episodes.score)
        layout = self.layout(episodes)
        minis = self.first_passes(episodes, layout)
        metrics = self._measure(episodes, layout, minis)
        check_sampler(metrics["sampler_deviation"], self._precision)
        minis = whiten_advantages(minis)
        timer.end("advantages")

        warming_up = iteration <= self.settings.critic_warmup_iterations
        tokens = answer_tokens(episodes, self.sizes.mini)
        steps = over_ranks(
            [self.update(*step, warming_up=warming_up) for step in zip(minis, tokens, strict=True)]
        )
        timer.end("update")
        if not warming_up:  # before its first step the policy is unchanged: this deviation is rounding error
            metrics["first_ratio_deviation"] = steps[0]["ratio_deviation"]
        metrics |= _means(steps)
        answers = self.settings.episodes
        speed = throughput(answers, answers * metrics["answer_length"], sampling_seconds)
        return {f"ppo/{name}": value for name, value in metrics.items()} | speed | timer.seconds

    def _places(self, iteration: int) -> list[int]:
        """This rank's places in the sequence of all iterations' prompts, mini-batch after mini-batch."""
        count, mini = self.settings.episodes, self.settings.mini_batch_size
        share = rank_share(count, mini, f"{self.seed}/mini_batches/{iteration}")
        return [(iteration - 1) * count + place for place in share]

    @phase(SAMPLING)  # also for the copy of the weights
    def sample(
        self, prompts: Sequence[EncodedPrompt], name: str, *, keys: Sequence[int], version: int
    ) -> Samples:
        """One answer of the policy to each prompt; every rank calls it.

        Args:
            name: decides, with the prompt's key, the random numbers of an answer.
            version: number of iterations after which the policy has these weights.
        """
        for engine in self._engines.values():
            engine.free_gathered()
        trained = max(0, version - self.settings.critic_warmup_iterations)  # the warm-up does not change it
        self._sampler.sync(self.policy.module.language_model, trained)
        samples = self._sampler.sample(
            [prompt.ids for prompt in prompts],
            self.settings.max_new_tokens,
            temperature=self.settings.temperature,
            seed=f"{self.seed}/{name}",
            keys=keys,
        )
        self._sampler.release()
        return samples

    @phase("scoring")
    def score(self, prompts: Sequence[EncodedPrompt], samples: Samples) -> Episodes:
        """The answers with their scores and rewards; the same number on every rank."""
        return score_episodes(
            prompts,
            samples,
            reward_models=self._reward_models,
            missing_eos_penalty=self.settings.missing_eos_penalty,
        )

    def layout(self, episodes: Episodes) -> list[list[list[int]]]:
        """Row numbers of the episodes by mini-batch and micro-batch."""
        return mini_batches(episodes, self.sizes)

    @phase("forward passes")
    def first_passes(self, episodes: Episodes, layout: list[list[list[int]]]) -> list[list[MicroBatch]]:
        """Mini-batches of micro-batches, with the models' outputs and advantages, which are not whitened."""
        with self.reference.in_use():
            return [[self._passes.before_update(episodes, rows) for rows in mini] for mini in layout]

    def _measure(
        self, episodes: Episodes, layout: list[list[list[int]]], minis: list[list[MicroBatch]]
    ) -> Metrics:
        """Metrics of the iteration before its first step; advantages are not whitened yet."""
        batches = [batch for mini in minis for batch in mini]
        by_safety = safety_branch(
            episodes.safety, episodes.adversarial, threshold=self._reward_models.safety_threshold
        )
        branches = [by_safety[rows] for mini in layout for rows in mini]
        return (
            episode_metrics(episodes, by_safety)
            | model_metrics(batches, cliprange=self.settings.cliprange)
            | advantage_metrics(batches, branches)
        )

    @phase("updating")
    def update(self, mini: Sequence[MicroBatch], tokens: int, *, warming_up: bool) -> Totals:
        """One optimizer step of the critic, and after the warm-up of the policy."""
        value_clip = None if warming_up else self.settings.cliprange_value
        values = value_step(self.critic, self._passes, mini, tokens=tokens, cliprange=value_clip)
        if warming_up:
            return values
        return values | policy_step(
            self.policy, self._passes, mini, tokens=tokens, cliprange=self.settings.cliprange
        )


def _means(steps: Sequence[Mapping[str, float]]) -> Metrics:
    """The mean of each metric over the mini-batches, without `ratio_deviation`."""
    names = [name for name in steps[0] if name != "ratio_deviation"]
    return {name: sum(step[name] for step in steps) / len(steps) for name in names}
