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
from ...console import say, track
from ...data.intake import Intake
from ...deepspeed_file import zero_stage
from ...distributed import group
from ...errors import Interrupted
from ...jsonl import read_rows
from ...measures import JUDGE
from ...model.checkpoint import context_length
from ...model.saving import save_model, save_partitioned
from ...model.sharded import is_partitioned
from ...processes import is_main_process, phase
from ...training.interruption import interruptible
from ...training.tracking import Tracker
from ..models import common_tokenizer, load_reward_models
from ..prompts import read_pool
from ..shared_base import SharedBaseModel
from .early_warning import EarlyWarning
from .loading import engine_configs, fit_checkpoint, load_models, load_shared_base
from .metrics import Metrics
from .rollout import check_longest_prompt
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
    configs = engine_configs(settings, inputs)
    tokenizer = common_tokenizer(inputs, "start")
    intake = Intake(settings.max_bad_rows, check_of(tokenizer))
    room = context_length(inputs["start"])
    pool = read_pool(settings, inputs["data"], tokenizer, context_length=room, intake=intake)
    intake.write(out)
    check_longest_prompt(settings, pool)
    checkpoints = Checkpoints(out / RESUME, zero_stage=zero_stage(settings.deepspeed))
    if (checkpoint := checkpoints.newest()) is not None:
        fit_checkpoint(checkpoint, configs)
    shared = load_shared_base(settings, inputs)
    reward_models = load_reward_models(settings, inputs, tokenizer, shared=shared)
    models = load_models(settings, inputs, configs, shared=shared)
    trainer = PpoTrainer(
        models, reward_models=reward_models, prompts=pool, settings=settings, configs=configs
    )
    with Tracker(out, settings.model_dump(mode="json")) as tracker:
        first, last, warned_at = _train(trainer, checkpoints, checkpoint, tracker=tracker, rows=out / METRICS)
    _publish(models.policy, tokenizer, out, shared=shared, settings=settings)
    warning = {"judge_warning": warned_at} if JUDGE in inputs else {}
    return {"first": first, "last": last, "prompts": len(pool), **warning, **intake.metrics()}


def _publish(
    policy: Any, tokenizer: Any, out: Path, *, shared: SharedBaseModel | None, settings: PpoSettings
) -> None:
    """Saves the trained model; every rank calls it."""
    if shared is None and any(map(is_partitioned, policy.parameters())):
        with phase("saving"):
            save_partitioned(policy, tokenizer, out / "model")
            group.barrier()
        return

    def save() -> None:
        if shared is None:
            save_model(policy, tokenizer, out / "model")
        else:
            shared.save("policy", tokenizer, out, merge=settings.lora is not None and settings.lora.merge)

    group.once("saving", save)


def _train(
    trainer: PpoTrainer,
    checkpoints: Checkpoints,
    checkpoint: Path | None,
    *,
    tracker: Tracker,
    rows: Path,
) -> tuple[Metrics, Metrics, int | None]:
    """Runs all iterations, or those after `checkpoint`.

    Returns the first and the last row of metrics, and the iteration of the early warning (None: no warning).
    `rows`: the file of the logged metrics.
    """
    total, save_every = trainer.settings.iterations, trainer.settings.save_iterations
    resumed = 0
    first_and_last: list[Metrics] = []
    if checkpoint is not None:
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
