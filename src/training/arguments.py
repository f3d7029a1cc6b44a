"""From a `trainer:` section to `TrainingArguments`, `SFTConfig` or `RewardConfig`."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from transformers import TrainingArguments

from ..console import say
from ..deepspeed_file import check_gradient_sum
from ..errors import ConfigError
from ..processes import world_size
from .settings import PAPER_OPTIMIZER, TrainedSettings

A = TypeVar("A", bound=TrainingArguments)

TOKENS_OF_A_MICRO_BATCH = 4096  # on each rank, where the section gives no batch size


def trainer_section(settings: TrainedSettings) -> dict[str, Any]:
    """The stage's `trainer` over its defaults, the batch sizes among them, for the ranks of this start."""
    section = settings.trainer_values
    if "per_device_train_batch_size" not in section:
        rows, accumulation = micro_batch_rows(settings), section.get("gradient_accumulation_steps")
        if accumulation is None:
            rows, accumulation = _nearest_split(settings.step_rows / world_size(), rows)
            section["gradient_accumulation_steps"] = accumulation
            step = rows * accumulation * world_size()
            say(
                f"trainer: no batch size is given; a step has {step:,} rows ({rows} x {accumulation} "
                f"micro-batches x {world_size()} ranks), in the paper {settings.step_rows:,}"
            )
        section["per_device_train_batch_size"] = rows
    return section


def micro_batch_rows(settings: TrainedSettings) -> int:
    """Rows that hold 4,096 tokens, or fewer: all ranks together have no more than the paper's step."""
    return max(1, min(TOKENS_OF_A_MICRO_BATCH // settings.row_tokens, settings.step_rows // world_size()))


def _nearest_split(share: float, most: int) -> tuple[int, int]:
    """Rows of a micro-batch, `most` or down to half of it, and how many come nearest to a rank's share."""
    splits = [(rows, max(1, round(share / rows))) for rows in range(most, most // 2, -1)]
    return min(splits, key=lambda split: abs(split[0] * split[1] - share))


def training_arguments(
    kind: type[A],
    section: Mapping[str, Any],
    out: Path,
    *,
    seed: int,
    deepspeed: str | None = None,
    **defaults: Any,
) -> A:
    """Arguments of class `kind`: `section` over the caller's `defaults` over the paper's optimizer.

    Without a GPU everything is fp32 and nothing is recomputed, unless the section says otherwise; with one,
    bf16 mixed precision.

    Raises ConfigError with the reason where `kind` refuses a combination; see also `check_gradient_sum`.
    """
    chosen = {**PAPER_OPTIMIZER, **_machine(), **defaults, **section}
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
            arguments = kind(**(chosen | ours))
    except (ValueError, TypeError) as error:
        raise ConfigError(f"trainer: {error}") from error
    check_gradient_sum(deepspeed, bf16=arguments.bf16, accumulation=arguments.gradient_accumulation_steps)
    return arguments


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
