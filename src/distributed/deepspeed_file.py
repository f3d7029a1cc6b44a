"""A DeepSpeed file: what it says, whether it suits, and what an engine of our own gets of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ..errors import ConfigError
from ..processes import world_size

FP32 = ("fp32", "float32", "float")  # as DeepSpeed calls it


def zero_stage(deepspeed: str | None) -> int | None:
    """The ZeRO stage that a DeepSpeed file asks for, None without one."""
    if deepspeed is None:
        return None
    config = json.loads(Path(deepspeed).read_text(encoding="utf-8"))
    stage: int = config.get("zero_optimization", {}).get("stage", 0)
    return stage


def check_gradient_sum(deepspeed: str | None, *, bf16: bool, accumulation: int) -> None:
    """Raises ConfigError where DeepSpeed would add up the gradients of several micro-batches in bf16."""
    if deepspeed is None or not bf16 or accumulation == 1:
        return
    config = json.loads(Path(deepspeed).read_text(encoding="utf-8"))
    if zero_stage(deepspeed) == 0:
        remedy = "ZeRO-0 knows no other sum: use zero1.json"
    elif config.get("data_types", {}).get("grad_accum_dtype") not in FP32:
        remedy = 'give it "data_types": {"grad_accum_dtype": "fp32"}'
    else:
        return
    raise ConfigError(
        f"{deepspeed}: adds up the gradients of {accumulation} micro-batches in bf16, which is inexact; "
        f"{remedy}, or set the number of micro-batches (trainer.gradient_accumulation_steps, in PPO the "
        "mini-batch of a rank over ppo.micro_batch_size) to 1"
    )


def check_deepspeed_file(path: str | None, accumulation: int) -> None:
    """Raises ConfigError where a DeepSpeed file asks for ZeRO-3, names an optimizer or a scheduler, or would
    add up the gradients of so many micro-batches in bf16.
    """
    config = json.loads(Path(path).read_text(encoding="utf-8")) if path is not None else {}
    if config.get("zero_optimization", {}).get("stage") == 3:
        raise ConfigError(
            f"{path}: zero_optimization.stage: PPO samples from whole weights; expected 0, 1 or 2"
        )
    for section in ("optimizer", "scheduler"):
        if section in config:
            raise ConfigError(f"{path}: {section}: PPO brings its own AdamW at a constant rate; take it out")
    check_gradient_sum(path, bf16=_in_bf16(config), accumulation=accumulation)


def engine_config(path: str, micro_batch_size: int, accumulation: int) -> dict[str, Any]:
    """The file's settings with batch sizes and `auto` precision filled in."""
    check_deepspeed_file(path, accumulation)
    config: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8"))
    config |= {
        "train_micro_batch_size_per_gpu": micro_batch_size,
        "gradient_accumulation_steps": accumulation,
        "train_batch_size": micro_batch_size * accumulation * world_size(),
    }
    if "bf16" in config:
        config["bf16"]["enabled"] = _in_bf16(config)
    if config.get("fp16", {}).get("enabled") == "auto":
        config["fp16"]["enabled"] = False
    return config


def _in_bf16(config: Mapping[str, Any]) -> bool:
    enabled = config.get("bf16", {}).get("enabled")
    return torch.cuda.is_available() if enabled == "auto" else bool(enabled)
