"""The stage `reward`: trains a reward model from a chat model and comparisons (section 3.2.2)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from trl import RewardConfig

from ..artifact import write_json
from ..chat_format.encoding import check_of
from ..data.intake import Intake
from ..data.row_files import ROWS
from ..distributed import group
from ..model.checkpoint import check_length, context_length, load_tokenizer, new_reward_model
from ..model.lora import load_trainable
from ..processes import is_main_process
from ..training.arguments import base_dtype, rows_per_step, trainer_section, training_arguments
from ..training.loop import run_trainer, save_trained
from ..training.monitoring import monitor_options
from ..training.tracking import Tracker
from .accuracy import UNSAFE_BELOW, accuracy, accuracy_metrics, safety_metrics, score_pairs
from .pairs import Pairs, read_pairs
from .settings import RewardSettings
from .trainer import pair_trainer


def run(settings: RewardSettings, inputs: Mapping[str, Path], out: Path) -> dict[str, Any]:
    """Trains a reward model, initialised from `inputs["model"]`, into `out/model`; measures its accuracy.

    Metrics: see `accuracy_metrics`, on held-out pairs; for the safety model also `safety` (`safety_metrics`);
    with `evasions` their own `accuracy` under `evasions`; those of `read_pairs` and of the training.
    """
    group.setup(settings.deepspeed)
    tokenizer = load_tokenizer(inputs["model"])
    check_length("max_length", settings.max_length, context_length(inputs["model"]))
    intake = Intake(settings.max_bad_rows, check_of(tokenizer))
    pairs, held_out, counts = read_pairs(
        settings,
        inputs["data"],
        tokenizer,
        folder=out / ROWS,
        answers_root=inputs.get("refusals"),
        intake=intake,
    )
    intake.write(out)
    arguments = training_arguments(
        RewardConfig,
        trainer_section(settings),
        out,
        seed=settings.seed,
        deepspeed=settings.deepspeed,
        max_length=None,
    )
    if "warmup_steps" not in settings.trainer:
        arguments.warmup_steps = warmup_steps(arguments, len(pairs))
    new = partial(new_reward_model, seed=settings.seed, dtype=base_dtype(arguments, settings.adapter))
    model = load_trainable(new, inputs["model"], settings.adapter, seed=settings.seed)
    with Tracker(out, settings.model_dump(mode="json")) as tracker:
        trainer = pair_trainer(
            model,
            tokenizer,
            pairs,
            arguments=arguments,
            safety_weight=settings.safety_loss_weight,
            description=f"reward ({settings.kind})",
            monitor=monitor_options(settings),
        )
        trained = run_trainer(trainer, tracker, items_per_row=1, unit="pairs")
        measured = _held_out_metrics(settings, trainer.model, held_out)
    save_trained(trainer, tokenizer, out / "model", merge=settings.lora is None or settings.lora.merge)
    if not is_main_process():
        return {}

    description = {
        "kind": settings.kind,
        "direction": "higher is better",
        "scale": "the score is a logit; thresholds refer to its sigmoid, in (0, 1)",
        "unsafe_below": UNSAFE_BELOW[0] if settings.kind == "safety" else None,
    }
    write_json(out / "model" / "reward.json", description)
    return counts | trained | measured


def _held_out_metrics(settings: RewardSettings, model: Any, held_out: Pairs) -> dict[str, Any]:
    """The accuracy of the trained model on held-out pairs, that on pairs with an evasion apart.

    Every rank scores its share of the pairs.
    """
    compared, evasions = held_out.part(~held_out.evasion), held_out.part(held_out.evasion)
    chosen, rejected = score_pairs(model, compared)
    metrics = accuracy_metrics(compared, chosen, rejected)
    if settings.kind == "safety":
        metrics["safety"] = safety_metrics(compared, chosen, rejected)
    if evasions:
        metrics["evasions"] = accuracy(evasions, *score_pairs(model, evasions))
    return metrics


def warmup_steps(arguments: RewardConfig, pairs: int) -> int:
    """Number of warm-up steps: 3% of all steps, at least 5 (section 3.2.2)."""
    steps = arguments.max_steps
    if steps <= 0:
        steps = math.ceil(math.ceil(pairs / rows_per_step(arguments)) * arguments.num_train_epochs)
    return max(5, math.ceil(0.03 * steps))
