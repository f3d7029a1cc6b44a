"""The one reader of DeepSpeed files: what a file says, whether it suits, and an engine's settings from it.

It imports no torch: settings are read without it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import ConfigError
from .processes import world_size
from .yaml_file import parse_json

FP32 = ("fp32", "float32", "float")  # as DeepSpeed calls it


@dataclass(frozen=True)
class DeepSpeedFile:
    """A DeepSpeed file as it is on the disk; `auto` stays `auto`."""

    path: str
    content: dict[str, Any]

    @classmethod
    def read(cls, path: str | Path) -> DeepSpeedFile:
        """Raises OSError where there is no such file, ValueError, with the line, where it is no JSON."""
        return cls(str(path), parse_json(Path(path).read_text(encoding="utf-8")))

    @property
    def zero_stage(self) -> int:
        stage: int = self.content.get("zero_optimization", {}).get("stage", 0)
        return stage

    @property
    def sums_gradients_in_fp32(self) -> bool:
        return self.content.get("data_types", {}).get("grad_accum_dtype") in FP32

    def computes_in_bf16(self, gpu: bool) -> bool:
        """`auto` means bf16 where there is a GPU."""
        enabled = self.content.get("bf16", {}).get("enabled")
        return gpu if enabled == "auto" else bool(enabled)


def zero_stage(deepspeed: str | None) -> int | None:
    """The ZeRO stage that a DeepSpeed file asks for, None without one."""
    return None if deepspeed is None else DeepSpeedFile.read(deepspeed).zero_stage


def check_gradient_sum(deepspeed: str | None, *, bf16: bool, accumulation: int) -> None:
    """Raises ConfigError where DeepSpeed would add up the gradients of several micro-batches in bf16."""
    if deepspeed is None or not bf16 or accumulation == 1:
        return
    file = DeepSpeedFile.read(deepspeed)
    if file.zero_stage == 0:
        remedy = "ZeRO-0 knows no other sum: use zero1.json"
    elif not file.sums_gradients_in_fp32:
        remedy = 'give it "data_types": {"grad_accum_dtype": "fp32"}'
    else:
        return
    raise ConfigError(
        f"{deepspeed}: adds up the gradients of {accumulation} micro-batches in bf16, which is inexact; "
        f"{remedy}, or set the number of micro-batches (trainer.gradient_accumulation_steps, in PPO the "
        "mini-batch of a rank over ppo.micro_batch_size) to 1"
    )


def check_deepspeed_file(deepspeed: str | None, accumulation: int, *, gpu: bool) -> None:
    """Raises ConfigError where a DeepSpeed file asks for ZeRO-3, names an optimizer or a scheduler, or would
    add up the gradients of so many micro-batches in bf16.
    """
    if deepspeed is None:
        return
    file = DeepSpeedFile.read(deepspeed)
    if file.zero_stage == 3:
        raise ConfigError(
            f"{deepspeed}: zero_optimization.stage: PPO samples from whole weights; expected 0, 1 or 2"
        )
    for section in ("optimizer", "scheduler"):
        if section in file.content:
            raise ConfigError(
                f"{deepspeed}: {section}: PPO brings its own AdamW at a constant rate; take it out"
            )
    check_gradient_sum(deepspeed, bf16=file.computes_in_bf16(gpu), accumulation=accumulation)


def engine_config(deepspeed: str, *, gpu: bool, micro_batch_size: int, accumulation: int) -> dict[str, Any]:
    """The file's settings with batch sizes and `auto` precision filled in; see `check_deepspeed_file`."""
    check_deepspeed_file(deepspeed, accumulation, gpu=gpu)
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
    return config
