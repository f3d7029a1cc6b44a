"""The stage `ppo`: trains a chat model against both reward models (section 3.2.3)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...artifact import RESUME
from ...chat_format.encoding import check_of
from ...checkpoints.sealed import Checkpoints
from ...data.intake import Intake
from ...deepspeed_file import zero_stage
from ...distributed import group
from ...measures import JUDGE
from ...model.saving import save_model, save_partitioned
from ...model.sharded import is_partitioned
from ...processes import phase
from ...sampling.engines import Samplers
from ...training.tracking import Tracker
from ..models import common_tokenizer, load_reward_models, smallest_context
from ..prompts import read_pool
from ..shared_base import SharedBaseModel
from .held_out import hold_out
from .loading import (
    computes_in_bf16,
    engine_configs,
    fit_checkpoint,
    load_models,
    load_shared_base,
    policy_sampler,
)
from .loop import METRICS, train
from .rollout import check_longest_prompt
from .selection import Selection
from .settings import PpoSettings
from .trainer import PpoTrainer


def run(settings: PpoSettings, inputs: Mapping[str, Path], out: Path) -> dict[str, Any]:
    """Trains the model in `inputs["start"]` into `out/model`; the critic starts as the helpfulness model.

    With `lora` only adapters are trained: those of the start model and of the helpfulness model.

    With `held_out` the model is that of the best evaluated version.

    Metrics: `first` and `last` (rows of `metrics.jsonl` of the first and the last iteration), `prompts`; with
    the input `judge` also `judge_warning` (the iteration of the warning of `EarlyWarning`, or None); with
    `held_out` also `held_out`, see `Selection.summary`; those of `data.intake.Intake`.
    Raises DataError for models or rows that don't fit together, ConfigError for settings that don't.
    """
    group.setup(settings.deepspeed)
    configs = engine_configs(settings, inputs)
    tokenizer = common_tokenizer(inputs, "start")
    intake = Intake(settings.max_bad_rows, check_of(tokenizer))
    context = smallest_context(inputs, "start")
    pool = read_pool(settings, inputs["data"], tokenizer, context_length=context, intake=intake)
    intake.write(out)
    check_longest_prompt(settings, pool)
    training, held_out = hold_out(pool, settings.held_out, settings.seed, intake=intake)
    checkpoints = Checkpoints(out / RESUME, zero_stage=zero_stage(settings.deepspeed))
    if (checkpoint := checkpoints.newest()) is not None:
        fit_checkpoint(checkpoint, configs)
    shared = load_shared_base(settings, inputs)
    reward_models = load_reward_models(settings, inputs, tokenizer, shared=shared)
    models = load_models(settings, inputs, configs, shared=shared)
    with (
        Samplers(
            settings, dtype="bfloat16" if computes_in_bf16(settings) else "float32", working=out / RESUME
        ) as samplers,
        Tracker(out, settings.model_dump(mode="json")) as tracker,
    ):
        trainer = PpoTrainer(
            models,
            sampler=policy_sampler(models.policy, settings, samplers, start=inputs["start"], configs=configs),
            reward_models=reward_models,
            prompts=training,
            settings=settings,
            configs=configs,
        )
        selection = Selection(trainer, held_out, out / RESUME)
        trained = train(
            trainer, checkpoints, checkpoint, selection=selection, tracker=tracker, rows=out / METRICS
        )
    selection.restore(trained.last["step"])
    _publish(models.policy, tokenizer, out, shared=shared, settings=settings)
    warning = {"judge_warning": trained.warned_at} if JUDGE in inputs else {}
    return {
        "first": trained.first,
        "last": trained.last,
        "prompts": len(pool),
        **selection.summary(),
        **warning,
        **intake.metrics(),
    }


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
