"""The step of a round that runs PPO on top of its rejection-sampled checkpoint (section 3.2.3)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ..artifact import RESUME, write_json
from ..checkpoints.sealed import Checkpoints
from ..checkpoints.universal import check_same_ranks
from ..console import say, track
from ..deepspeed_file import zero_stage
from ..distributed.group import barrier
from ..errors import Interrupted
from ..jsonl import Row
from ..model.checkpoint import load_causal_lm, load_reward_model
from ..model.saving import save_model
from ..processes import is_main_process
from ..training.interruption import interruptible
from ..training.tracking import Tracker
from .context import Context
from .critic import Critic
from .ppo_metrics import Metrics
from .ppo_trainer import PpoTrainer
from .rounds import is_of

SHARED_WITH_TRAINER = ("adam_beta1", "adam_beta2", "adam_epsilon", "weight_decay", "max_grad_norm")
ENDS = "ends.json"  # in a checkpoint: metrics of the first iteration and of the last one


def improve(context: Context, start: Path, index: int, tracker: Tracker, out: Path) -> Row:
    """Trains the model in `start` and writes it to `out/model`; a killed run goes on from a checkpoint.

    With `lora` its adapter is trained, `start`'s as well as the critic's.

    Returns the metrics of the `first` and the `last` iteration.
    """
    settings, entry = context.settings, context.settings.rounds[index]
    policy, critic, reference = _models(context, start.parent)
    trainer = PpoTrainer(
        policy,
        critic,
        safety=context.safety,
        helpfulness=context.helpfulness,
        prompts=context.pool,
        settings=settings.ppo,
        max_new_tokens=settings.max_new_tokens,
        safety_threshold=settings.safety_threshold,
        seed=f"{settings.seed}/{entry.name}/ppo",
        sampling_batch_size=settings.sampling_batch_size,
        deepspeed=settings.deepspeed,
        reference=reference,
        dtype=settings.dtype,
        optimizer={name: settings.trainer_values[name] for name in SHARED_WITH_TRAINER},
    )
    checkpoints = Checkpoints(out / RESUME, zero_stage=zero_stage(settings.deepspeed))
    before = settings.ppo.iterations * sum(earlier.ppo for earlier in settings.rounds[:index])
    phase = _Phase(f"{entry.name}: PPO", index + 1, before)
    first, last = _train(trainer, checkpoints, phase, tracker)
    if is_main_process():
        if context.trunk is None:
            save_model(policy, context.tokenizer, out / "model")
        else:
            context.trunk.save("policy", context.tokenizer, out)
    barrier()
    return {"first": first, "last": last}


def _models(context: Context, start: Path) -> tuple[Any, Critic, Any]:
    """Policy, critic, and the reference where it is no copy of the policy: whole models, or adapters."""
    if context.trunk is None:
        return load_causal_lm(start), Critic(load_reward_model(context.reward)), None
    policy, reference = (context.trunk.language_model(name, start) for name in ("policy", "reference"))
    reward_model = context.trunk.reward_model("critic", context.reward)
    for trained in (policy, reward_model.base_model):
        trained.train_adapter()
    return policy, Critic(reward_model), reference


@dataclass(frozen=True)
class _Phase:
    """The PPO of one round: what it is called, the round's number, iterations of the rounds before it."""

    description: str
    round: int
    before: int


def _train(
    trainer: PpoTrainer, checkpoints: Checkpoints, phase: _Phase, tracker: Tracker
) -> tuple[Metrics, Metrics]:
    """Runs all iterations, or those that are left; returns the metrics of the first and of the last one.

    Logged iterations are counted over all rounds, so that a dashboard's curve never goes back.
    """
    total, every = trainer.settings.iterations, trainer.settings.save_iterations
    done, ends = 0, []
    if (checkpoint := checkpoints.newest()) is not None:
        check_same_ranks(checkpoint, trainer.deepspeed)
        done = checkpoints.step(checkpoint)
        trainer.load(checkpoint)
        ends = json.loads((checkpoint / ENDS).read_text(encoding="utf-8"))
        say(f"{phase.description}: going on after iteration {done}")
    tracker.rewind(phase.before + done, lambda row: is_of(row, phase.round, "ppo"))
    with interruptible() as asked:
        iterations = trainer.iterations(done)
        for metrics in track(iterations, phase.description, total, "iterations", done=done):
            done = int(metrics["iteration"])
            metrics["iteration"] = number = phase.before + done
            tracker.log({"round": phase.round, **metrics}, number)
            ends = [*ends[:1], metrics]
            stop = asked() and done < total
            if stop or done % every == 0 or done == total:
                checkpoints.save(done, partial(_save, trainer, ends))
            if stop:
                raise Interrupted(
                    f"{phase.description}: stopped after iteration {done}; run it again to go on"
                )
    return ends[0], ends[-1]


def _save(trainer: PpoTrainer, ends: list[Metrics], folder: Path) -> None:
    trainer.save(folder)
    if is_main_process():
        write_json(folder / ENDS, ends)
