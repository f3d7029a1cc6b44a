"""The stage `ppo`: trains a chat model against both reward models (section 3.2.3)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from ...artifact import RESUME, write_json
from ...chat_format.encoding import check_of
from ...checkpoints.sealed import Checkpoints
from ...checkpoints.universal import check_same_ranks
from ...console import say, track
from ...data.intake import Intake
from ...deepspeed_file import check_deepspeed_file, zero_stage
from ...distributed import group
from ...distributed.device import device
from ...errors import Interrupted
from ...jsonl import read_rows
from ...measures import JUDGE
from ...model.checkpoint import context_length, load_causal_lm, load_reward_model
from ...model.lora import base_model_of
from ...model.saving import save_model
from ...processes import is_main_process
from ...training.interruption import interruptible
from ...training.tracking import Tracker
from ..models import common_tokenizer, load_reward_models
from ..prompts import read_pool
from ..shared_base import SharedBaseModel
from .critic import Critic
from .early_warning import EarlyWarning
from .metrics import Metrics
from .rollout import check_longest_prompt, sizes_per_rank
from .settings import PpoSettings
from .trainer import PpoTrainer

METRICS = "metrics.jsonl"
FIRST_AND_LAST = "first_and_last.json"  # in a checkpoint: metrics of the first and of the last iteration


def run(settings: PpoSettings, inputs: Mapping[str, Path], out: Path) -> dict[str, Any]:
    """Trains the model in `inputs["start"]` into `out/model`; the critic starts as the helpfulness model.

    With `lora` only adapters are trained: those of the start model and of the helpfulness model.

    Metrics: `first` and `last` (rows of `metrics.jsonl` of the first and the last iteration), `prompts`; with
    the input `judge` also `judge_warning` (the iteration of the warning of `EarlyWarning`, or None); those of
    `data.intake.Intake`.
    Raises DataError for models or rows that don't fit together, ConfigError for settings that don't.
    """
    group.setup(settings.deepspeed)
    accumulates = sizes_per_rank(settings).accumulates
    check_deepspeed_file(settings.deepspeed, gpu=device().type == "cuda", accumulates=accumulates)
    tokenizer = common_tokenizer(inputs, "start")
    intake = Intake(settings.max_bad_rows, check_of(tokenizer))
    room = context_length(inputs["start"])
    pool = read_pool(settings, inputs["data"], tokenizer, context_length=room, intake=intake)
    intake.write(out)
    check_longest_prompt(settings, pool)
    shared = SharedBaseModel(base_model_of(inputs["start"]), settings.adapter) if settings.adapter else None
    reward_models = load_reward_models(settings, inputs, tokenizer, shared=shared)
    policy, critic, reference = _load_models(inputs, shared)
    trainer = PpoTrainer(
        policy,
        critic,
        reward_models=reward_models,
        prompts=pool,
        settings=settings,
        reference=reference,
    )
    with Tracker(out, settings.model_dump(mode="json")) as tracker:
        checkpoints = Checkpoints(out / RESUME, zero_stage=zero_stage(settings.deepspeed))
        first, last, warned_at = _train(trainer, checkpoints, tracker, rows=out / METRICS)
    merge = settings.lora is None or settings.lora.merge
    group.once("saving", lambda: _save_model(policy, tokenizer, out, shared=shared, merge=merge))
    warning = {"judge_warning": warned_at} if JUDGE in inputs else {}
    return {"first": first, "last": last, "prompts": len(pool), **warning, **intake.metrics()}


def _save_model(
    policy: Any, tokenizer: Any, out: Path, *, shared: SharedBaseModel | None, merge: bool
) -> None:
    if shared is None:
        save_model(policy, tokenizer, out / "model")
    else:
        shared.save("policy", tokenizer, out, merge=merge)


def _load_models(inputs: Mapping[str, Path], shared: SharedBaseModel | None) -> tuple[Any, Critic, Any]:
    """Policy, critic and reference: adapters of `shared`, or whole models and None for the reference.

    With None the trainer copies the policy.
    """
    if shared is None:
        return load_causal_lm(inputs["start"]), Critic(load_reward_model(inputs["helpfulness"])), None
    policy, reference = (shared.language_model(name, inputs["start"]) for name in ("policy", "reference"))
    reward_model = shared.reward_model("critic", inputs["helpfulness"])
    for model in (policy, reward_model.base_model):
        model.train_adapter()
    return policy, Critic(reward_model), reference


def _train(
    trainer: PpoTrainer, checkpoints: Checkpoints, tracker: Tracker, *, rows: Path
) -> tuple[Metrics, Metrics, int | None]:
    """Runs all iterations, or those after the newest checkpoint.

    Returns the first and the last row of metrics, and the iteration of the early warning (None: no warning).
    `rows`: the file of the logged metrics.
    """
    total, save_every = trainer.settings.iterations, trainer.settings.save_iterations
    resumed = 0
    first_and_last: list[Metrics] = []
    if (checkpoint := checkpoints.newest()) is not None:
        check_same_ranks(checkpoint, trainer.settings.deepspeed)
        resumed = checkpoints.step(checkpoint)
        trainer.load(checkpoint)
        first_and_last = json.loads((checkpoint / FIRST_AND_LAST).read_text(encoding="utf-8"))
        say(f"PPO: resuming after iteration {resumed}")
    tracker.rewind(resumed)
    early_warning = EarlyWarning(read_rows(rows) if is_main_process() else ())
    with interruptible() as interrupted:
        iterations = track(trainer.iterations(resumed), "PPO", total, unit="iterations", done=resumed)
        for done, metrics in enumerate(iterations, start=resumed + 1):
            tracker.log(metrics, done)
            early_warning.check(metrics, done)
            first_and_last = [*first_and_last[:1], {"step": done, **metrics}]
            stop = interrupted() and done < total
            if stop or done % save_every == 0 or done == total:
                checkpoints.save(done, partial(_save, trainer, first_and_last))
            if stop:
                raise Interrupted(f"PPO: interrupted after iteration {done}; run the same command to resume")
    return first_and_last[0], first_and_last[-1], early_warning.iteration


def _save(trainer: PpoTrainer, first_and_last: list[Metrics], folder: Path) -> None:
    trainer.save(folder)
    if is_main_process():
        write_json(folder / FIRST_AND_LAST, first_and_last)
