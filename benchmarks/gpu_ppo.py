"""The part `ppo` of `gpu.py`: two iterations of PPO with a model of 1.1 billion parameters."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from unittest.mock import patch

import torch
from gpu_sizes import Result, Sizes, new_model
from transformers import LlamaForSequenceClassification

from llamita.data.rows import Prompt
from llamita.distributed.device import device
from llamita.memory import ppo as accounting
from llamita.memory.account import Account
from llamita.model.precision import store_in
from llamita.model.reward_models import RewardModels, Scores
from llamita.model.scoring import terminal_scores
from llamita.rlhf.ppo import trainer as trainer_module
from llamita.rlhf.ppo.critic import Critic
from llamita.rlhf.ppo.loading import Models
from llamita.rlhf.ppo.metrics import PhaseTimer
from llamita.rlhf.ppo.settings import PpoSettings
from llamita.rlhf.ppo.trainer import PpoTrainer
from llamita.rlhf.prompts import EncodedPrompt
from llamita.sampling.engines import local_sampler

DTYPE = "bfloat16"
ACCOUNTED = {
    "sampling": ["sampling"],
    "scoring": ["scoring"],
    "advantages": ["passes"],
    "update": ["policy", "critic"],
}  # phases of the timer -> those of the accounting


def ppo(sizes: Sizes, _: Mapping[str, Any]) -> Iterator[Result]:
    """Seconds and memory of each phase of the second iteration; the first one makes Adam's state.

    Policy, critic, reference and two reward models on one GPU without DeepSpeed, computing in bf16. The
    weights are random, so nearly all answers have the maximum length.
    """
    trainer = new_trainer(sizes)
    yield {"parameters": sum(weight.numel() for weight in trainer.policy.module.parameters())} | _allocated()
    first, _tokens = measure(trainer, 1)
    yield {"first_iteration_seconds": {name: phase["phase_seconds"] for name, phase in first.items()}}
    phases, tokens = measure(trainer, 2)
    config = sizes.speed.model.llama_config(sizes.speed.vocabulary)
    predicted = accounting.ppo(trainer.settings, config.to_dict(), ranks=1)
    phases = {name: phase | accounted(name, phase, predicted) for name, phase in phases.items()}
    yield phases | {"iteration": whole(phases), "answer_tokens": tokens}


def new_trainer(sizes: Sizes) -> PpoTrainer:
    """Random models, all with one architecture; critic and reward models start with the same weights."""
    policy = new_model(sizes.speed, device())
    config = copy.deepcopy(policy.config)
    config.num_labels = 1
    with torch.device(device()):
        reward_model = LlamaForSequenceClassification(config)
    eos = policy.config.eos_token_id
    safety, helpfulness = (_scores(copy.deepcopy(reward_model), eos) for _ in range(2))
    draw = torch.Generator().manual_seed(0)
    drawn = torch.randint(3, sizes.speed.vocabulary, (2 * sizes.episodes, sizes.prompt), generator=draw)
    chosen = settings(sizes)
    sampler = local_sampler(policy, chosen.sampling_cache_tokens, chosen.dtype)
    sampler.release()
    return PpoTrainer(
        Models(policy, Critic(reward_model), copy.deepcopy(policy)),
        sampler=sampler,
        reward_models=RewardModels(helpfulness, safety),
        prompts=[EncodedPrompt(Prompt([{"role": "user", "content": ""}]), ids) for ids in drawn.tolist()],
        settings=chosen,
    )


def settings(sizes: Sizes) -> PpoSettings:
    return PpoSettings.model_validate(
        {
            "prompts": [{"path": "made by the benchmark", "format": "prompts"}],
            "max_prompt_length": sizes.prompt,
            "max_new_tokens": sizes.new_tokens,
            "episodes": sizes.episodes,
            "mini_batch_size": sizes.episodes,
            "micro_batch_size": sizes.micro_batch,
            "critic_warmup_iterations": 0,
            "dtype": DTYPE,
        }
    )


def _scores(model: Any, eos: int) -> Scores:
    store_in(DTYPE, model.eval())

    def score(prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]], _: Any) -> torch.Tensor:
        rows = [[*prompt, *answer, eos] for prompt, answer in zip(prompts, answers, strict=True)]
        return terminal_scores(model, rows, dtype=DTYPE).double().sigmoid()

    return score


class MeasuredPhases(PhaseTimer):
    """Also waits for the GPU at the end of each phase, and records the peak of torch's allocator in it."""

    def __init__(self) -> None:
        self.found: Result = {}
        _wait()
        super().__init__()

    def end(self, phase: str) -> float:
        peak = _wait()
        seconds = super().end(phase)
        self.found[phase] = {"phase_seconds": seconds} | peak | _allocated()
        return seconds


def _wait() -> Result:
    """The peak since the last call, in GB of 10^9 bytes; without a GPU there is none."""
    if not torch.cuda.is_available():
        return {}
    torch.cuda.synchronize()
    peak = torch.cuda.max_memory_allocated() / 1e9
    torch.cuda.reset_peak_memory_stats()
    return {"peak_gb": peak}


def _allocated() -> Result:
    return {"allocated_gb": torch.cuda.memory_allocated() / 1e9} if torch.cuda.is_available() else {}


def measure(trainer: PpoTrainer, iteration: int) -> tuple[Result, int]:
    """Runs one iteration; returns its phases and the number of its answer tokens."""
    timers: list[MeasuredPhases] = []

    def timer() -> MeasuredPhases:
        timers.append(MeasuredPhases())
        return timers[-1]

    with patch.object(trainer_module, "PhaseTimer", timer):
        metrics = trainer.iterate(iteration)
    return timers[0].found, round(metrics["ppo/answer_length"] * trainer.settings.episodes)


def whole(phases: Mapping[str, Mapping[str, float]]) -> Result:
    """Seconds of all phases, and the largest peak."""
    found: Result = {"phase_seconds": sum(phase["phase_seconds"] for phase in phases.values())}
    peaks = [phase["peak_gb"] for phase in phases.values() if "peak_gb" in phase]
    return found | ({"peak_gb": max(peaks)} if peaks else {})


def accounted(name: str, phase: Mapping[str, float], predicted: Mapping[str, Account]) -> Result:
    """What `llamita.memory` predicts for a phase, in GB and by part, and the peak as a multiple of it."""
    account = max((predicted[one] for one in ACCOUNTED[name]), key=lambda one: one.total)
    found: Result = {
        "accounted_gb": account.total / 1e9,
        "accounted_by_part": {part: round(size / 1e9, 2) for part, size in account.gpu.items()},
    }
    if "peak_gb" in phase:
        found["peak_over_accounted"] = phase["peak_gb"] * 1e9 / account.total
    return found
