"""Reads and checks DeepSpeed files, and completes their settings for an engine.

Imports no torch, so that settings can be read quickly.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import ConfigError
from .processes import world_size
from .yaml_file import parse_json

FP32 = ("fp32", "float32", "float")  # DeepSpeed's names for it


@dataclass(frozen=True)
class DeepSpeedFile:
    """The content of a DeepSpeed file; `auto` values are unchanged."""

    path: str
    content: dict[str, Any]

    @classmethod
    def read(cls, path: str | Path) -> DeepSpeedFile:
        """Raises OSError if the file cannot be read, ValueError with the line if it is not valid JSON."""
        return cls(str(path), parse_json(Path(path).read_text(encoding="utf-8")))

    @property
    def zero_stage(self) -> int:
        stage: int = self.content.get("zero_optimization", {}).get("stage", 0)
        return stage

    @property
    def sums_gradients_in_fp32(self) -> bool:
        return self.content.get("data_types", {}).get("grad_accum_dtype") in FP32

    def computes_in_bf16(self, gpu: bool) -> bool:
        """Whether bf16 is enabled; `auto` enables it on a GPU."""
        enabled = self.content.get("bf16", {}).get("enabled")
        return gpu if enabled == "auto" else bool(enabled)


def zero_stage(deepspeed: str | None) -> int | None:
    """The ZeRO stage in a DeepSpeed file, None without a file."""
    return None if deepspeed is None else DeepSpeedFile.read(deepspeed).zero_stage


def check_gradient_sum(deepspeed: str | None, *, bf16: bool, accumulates: bool) -> None:
    """Raises ConfigError if DeepSpeed would accumulate gradients of several micro-batches in bf16."""
    if deepspeed is None or not bf16 or not accumulates:
        return
    file = DeepSpeedFile.read(deepspeed)
    if file.zero_stage == 0:
        remedy = "ZeRO-0 cannot accumulate in fp32: use zero1.json"
    elif not file.sums_gradients_in_fp32:
        remedy = 'add "data_types": {"grad_accum_dtype": "fp32"} to the file'
    else:
        return
    raise ConfigError(
        f"{deepspeed}: accumulates the gradients of several micro-batches in bf16, which is inexact; "
        f"{remedy}, or use one micro-batch per step (trainer.gradient_accumulation_steps: 1; in PPO no "
        "micro_batch_size)"
    )


def check_deepspeed_file(deepspeed: str | None, *, gpu: bool, accumulates: bool) -> None:
    """Raises ConfigError for a DeepSpeed file that PPO cannot use.

    That is one with an optimizer or a scheduler, or one that would sum the gradients of several micro-batches
    in bf16, if `accumulates`.
    """
    if deepspeed is None:
        return
    file = DeepSpeedFile.read(deepspeed)
    for section in ("optimizer", "scheduler"):
        if section in file.content:
            raise ConfigError(
                f"{deepspeed}: {section}: remove this section; "
                "PPO uses its own AdamW with a constant learning rate"
            )
    check_gradient_sum(deepspeed, bf16=file.computes_in_bf16(gpu), accumulates=accumulates)


def engine_config(
    deepspeed: str, *, gpu: bool, micro_batch_size: int, accumulates: bool, hidden_size: int
) -> dict[str, Any]:
    """The checked settings of a file, with every `auto` filled in.

    `hidden_size` of the model determines ZeRO's buckets, by the formulas of transformers
    (`HfTrainerDeepSpeedConfig.trainer_config_finalize`).
    """
    check_deepspeed_file(deepspeed, gpu=gpu, accumulates=accumulates)
    # PPO shows its engines which micro-batch is a step's last one, so any number above 1 has the effect of 2
    accumulation = 1 + accumulates
    file = DeepSpeedFile.read(deepspeed)
    config = file.content | {
        "train_micro_batch_size_per_gpu": micro_batch_size,
        "gradient_accumulation_steps": accumulation,
        "train_batch_size": micro_batch_size * accumulation * world_size(),
    }
    if "bf16" in config:
        config["bf16"]["enabled"] = file.computes_in_bf16(gpu)
    if config.get("fp16", {}).get("enabled") == "auto":
        config["fp16"]["enabled"] = False
    if "zero_optimization" in config:
        square = hidden_size**2
        automatic = {
            "reduce_bucket_size": square,
            "stage3_prefetch_bucket_size": int(0.9 * square),
            "stage3_param_persistence_threshold": 10 * hidden_size,
        }
        zero = config["zero_optimization"]
        config["zero_optimization"] = {
            name: automatic.get(name, value) if value == "auto" else value for name, value in zero.items()
        }
    return config


def frozen_config(*, bf16: bool) -> dict[str, Any]:
    """Settings that partition a model which is not trained over the ranks: ZeRO-3 without an optimizer."""
    return {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "train_batch_size": world_size(),
        "bf16": {"enabled": bf16},
        "zero_optimization": {"stage": 3},
        "steps_per_print": 1_000_000_000,
    }
