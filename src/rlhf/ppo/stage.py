"""The stage `ppo`: trains a chat model against both reward models (section 3.2.3)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...artifact import RESUME
from ...chat_format.encoding import check_of
from ...checkpoints.sealed import Checkpoints
from ...data.intake import Intake
from ...deepspeed_file import check_deepspeed_file, zero_stage
from ...distributed import group
from ...distributed.device import device
from ...measures import JUDGE
from ...model.checkpoint import context_length, load_causal_lm, load_reward_model
from ...model.lora import base_model_of
from ...model.saving import save_model
from ...training.tracking import Tracker
from ..models import common_tokenizer, load_reward_models
from ..prompts import read_pool
from ..shared_base import SharedBaseModel
from .critic import Critic
from .held_out import hold_out
from .loop import METRICS, train
from .rollout import sizes_per_rank
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
    mini, micro = sizes_per_rank(settings)
    check_deepspeed_file(settings.deepspeed, gpu=device().type == "cuda", accumulates=mini > micro)
    tokenizer = common_tokenizer(inputs, "start")
    intake = Intake(settings.max_bad_rows, check_of(tokenizer))
    room = context_length(inputs["start"])
    pool = read_pool(settings, inputs["data"], tokenizer, context_length=room, intake=intake)
    intake.write(out)
    training, held_out = hold_out(pool, settings.held_out, settings.seed)
    shared = SharedBaseModel(base_model_of(inputs["start"]), settings.adapter) if settings.adapter else None
    reward_models = load_reward_models(settings, inputs, tokenizer, shared=shared)
    policy, critic, reference = _load_models(inputs, shared)
    trainer = PpoTrainer(
        policy,
        critic,
        reward_models=reward_models,
        prompts=training,
        settings=settings,
        reference=reference,
    )
    with Tracker(out, settings.model_dump(mode="json")) as tracker:
        stage = zero_stage(settings.deepspeed)
        checkpoints = Checkpoints(out / RESUME, zero_stage=stage)
        selection = Selection(trainer, held_out, out / RESUME, zero_stage=stage)
        trained = train(trainer, checkpoints, selection, tracker=tracker, rows=out / METRICS)
    selection.restore(trained.last["step"])
    merge = settings.lora is None or settings.lora.merge
    group.once("saving", lambda: _save_model(policy, tokenizer, out, shared=shared, merge=merge))
    warning = {"judge_warning": trained.warned_at} if JUDGE in inputs else {}
    return {
        "first": trained.first,
        "last": trained.last,
        "prompts": len(pool),
        **selection.summary(),
        **warning,
        **intake.metrics(),
    }


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
