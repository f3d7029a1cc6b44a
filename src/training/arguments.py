"""From a `trainer:` section to `TrainingArguments`, `SFTConfig` or `RewardConfig`."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from transformers import TrainingArguments

from ..errors import ConfigError

A = TypeVar("A", bound=TrainingArguments)

PAPER_OPTIMIZER: dict[str, Any] = {  # section 2.2; section 3 uses the same settings
    "optim": "adamw_torch_fused",  # one kernel a parameter: saves a sixth of a small model's step
    "adam_beta1": 0.9,
    "adam_beta2": 0.95,
    "adam_epsilon": 1e-5,
    "weight_decay": 0.1,
    "max_grad_norm": 1.0,
}

TO_A_TENTH: dict[str, Any] = {  # section 2.2: a cosine whose end is 10% of the peak learning rate
    "lr_scheduler_type": "cosine_with_min_lr",
    "lr_scheduler_kwargs": {"min_lr_rate": 0.1},
}


def training_arguments(
    kind: type[A],
    section: Mapping[str, Any],
    out: Path,
    seed: int,
    deepspeed: str | None = None,
    **defaults: Any,
) -> A:
    """Arguments of class `kind`: the YAML's `section` over the stage's `defaults` over the paper's optimizer.

    Without a GPU everything is fp32 and nothing is recomputed, unless the section says otherwise; with one,
    bf16 mixed precision. Raises ConfigError with the reason where `kind` refuses a combination.
    """
    chosen = {**PAPER_OPTIMIZER, **_machine(), **defaults, **section}
    if "lr_scheduler_type" in section and "lr_scheduler_kwargs" not in section:
        chosen.pop("lr_scheduler_kwargs", None)  # the default's kwargs belong to the default's schedule
    ours = {
        "output_dir": str(out),
        "seed": seed,
        "deepspeed": deepspeed,
        "report_to": "none",
        "disable_tqdm": True,
        "save_strategy": "steps",
        "remove_unused_columns": False,
    }
    try:
        with warnings.catch_warnings():  # trl's own `gradient_checkpointing` has a new name in transformers
            warnings.simplefilter("ignore", FutureWarning)
            return kind(**(chosen | ours))
    except (ValueError, TypeError) as error:
        raise ConfigError(f"trainer: {error}") from error


def rows_per_step(args: TrainingArguments) -> int:
    """Rows of one optimizer step over all ranks and micro-batches: the global batch."""
    return args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size


def _machine() -> dict[str, Any]:
    gpu = torch.cuda.is_available()
    machine: dict[str, Any] = {
        "use_cpu": not gpu,
        "bf16": gpu,
        "dataloader_pin_memory": gpu,
        "logging_steps": 10,
        "logging_first_step": True,
        "logging_nan_inf_filter": False,  # costs two synchronizations a step and hides what went wrong
    }
    if not gpu:
        machine["gradient_checkpointing"] = False  # trl's default is to recompute
    return machine
