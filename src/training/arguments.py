"""Converts a `trainer:` section to `TrainingArguments`, `SFTConfig` or `RewardConfig`."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from transformers import TrainingArguments

from ..console import say
from ..deepspeed_file import check_gradient_sum
from ..distributed.device import report_slow_bf16
from ..errors import ConfigError
from ..processes import world_size
from .micro_batches import split_step
from .settings import PAPER_OPTIMIZER, TrainedSettings

A = TypeVar("A", bound=TrainingArguments)


def trainer_section(settings: TrainedSettings) -> dict[str, Any]:
    """The stage's `trainer` section with its defaults, and batch sizes for the ranks of this run."""
    section = settings.trainer_values
    if "per_device_train_batch_size" not in section:
        rows, accumulation = split_step(settings, world_size())
        if "gradient_accumulation_steps" not in section:
            step = rows * accumulation * world_size()
            say(
                f"trainer: no batch size is set; a step has {step:,} rows ({rows} x {accumulation} "
                f"micro-batches x {world_size()} ranks), in the paper {settings.step_rows:,}"
            )
        section["per_device_train_batch_size"] = rows
        section["gradient_accumulation_steps"] = accumulation
    return section


def training_arguments(
    kind: type[A],
    section: Mapping[str, Any],
    out: Path,
    *,
    seed: int,
    deepspeed: str | None = None,
    **defaults: Any,
) -> A:
    """Arguments of class `kind` from `section`, then the caller's `defaults`, then the paper's optimizer.

    On a GPU the default is bf16 mixed precision; on a CPU it is fp32 without gradient checkpointing. Under
    ZeRO-3 a model that is built or loaded afterwards is partitioned at once.

    Raises ConfigError with the reason if `kind` rejects a combination; see also `check_gradient_sum`.
    """
    options = {**PAPER_OPTIMIZER, **_machine_defaults(), **defaults, **section}
    fixed = {
        "output_dir": str(out),
        "seed": seed,
        "deepspeed": deepspeed,
        "report_to": "none",
        "disable_tqdm": True,
        "save_strategy": "steps",
        "remove_unused_columns": False,
    }
    try:
        with warnings.catch_warnings():  # trl sets `gradient_checkpointing`, which transformers renames
            warnings.simplefilter("ignore", FutureWarning)
            arguments = kind(**(options | fixed))
    except (ValueError, TypeError) as error:
        raise ConfigError(f"trainer: {error}") from error
    check_gradient_sum(deepspeed, bf16=arguments.bf16, accumulates=arguments.gradient_accumulation_steps > 1)
    take_one_gpu(arguments)
    if arguments.bf16:
        report_slow_bf16()
    return arguments


def take_one_gpu(arguments: TrainingArguments) -> None:
    """Restricts a process without a launcher to one of the machine's GPUs, and says so.

    `Trainer` would copy the model to all of them in each step, and trl's trainers raise an error.
    """
    if arguments.n_gpu > 1:
        say(
            f"this process uses one of {arguments.n_gpu} GPUs, {arguments.device}; to use all of them, start "
            "the stage through launch/deepspeed.sh, or with `--processes`"
        )
        arguments._n_gpu = 1


def base_dtype(arguments: TrainingArguments, lora: Mapping[str, Any] | None) -> str:
    """The dtype of a model to train: bf16 for an adapter's base model if the run computes in it."""
    return "bfloat16" if lora is not None and arguments.bf16 else "float32"


def rows_per_step(args: TrainingArguments) -> int:
    """Number of rows in the global batch: of one optimizer step, over all ranks and micro-batches."""
    return args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size


def _machine_defaults() -> dict[str, Any]:
    gpu = torch.cuda.is_available()
    defaults: dict[str, Any] = {
        "use_cpu": not gpu,
        "bf16": gpu,
        "dataloader_pin_memory": gpu,
        "logging_steps": 10,
        "logging_first_step": True,
        "logging_nan_inf_filter": False,  # the filter hides NaN losses and synchronizes twice per step
    }
    if not gpu:
        defaults["gradient_checkpointing"] = False  # trl's default is True
    return defaults
