"""What trains a model and how it divides the model's states: a DeepSpeed engine, or plain torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ..deepspeed_file import FP32 as FP32_NAMES
from .shape import Shape

BF16, FP32 = 2, 4  # bytes of a number

Precision = Literal["bf16", "autocast", "fp32"]


@dataclass(frozen=True)
class Engine:
    """An engine of DeepSpeed 0.19.8, or plain torch with accelerate.

    Attributes:
        ranks: number of GPUs, over which ZeRO divides the states.
        stage: ZeRO stage; None without DeepSpeed.
        precision: `bf16`: weights in bf16, master weights in fp32 (DeepSpeed with bf16); `autocast`: weights
            in fp32 that autocast copies to bf16 (accelerate without DeepSpeed); `fp32`.
        caches_copies: whether autocast keeps its copies until the end of a forward pass: accelerate's does,
            that of `model/precision.py` (PPO) does not.
        fp32_sums: whether gradients are accumulated in fp32 (`data_types.grad_accum_dtype`).
        offload_optimizer: whether the optimizer is in the host's memory, and `offload_gradients`.
        offload_weights: whether ZeRO-3's partition of the weights is in the host's memory.
        overlap: whether gradients are reduced while others are computed, from a second bucket.
        bucket: elements of a bucket of gradients.
        persistence: elements up to which ZeRO-3 keeps a weight gathered.
        live: elements that ZeRO-3 keeps gathered at most, if a single weight is not larger.
        sub_group: elements that ZeRO-3's optimizer updates at once.
    """

    ranks: int
    stage: int | None
    precision: Precision
    caches_copies: bool = True
    fp32_sums: bool = True
    offload_optimizer: bool = False
    offload_weights: bool = False
    overlap: bool = False
    bucket: int = 500_000_000
    persistence: int = 100_000
    live: int = 1_000_000_000
    sub_group: int = 1_000_000_000

    @classmethod
    def plain(cls, ranks: int, *, bf16: bool) -> Engine:
        """Plain torch: accelerate, with DistributedDataParallel on several ranks."""
        return cls(ranks, None, "autocast" if bf16 else "fp32")

    @classmethod
    def of_file(cls, content: Mapping[str, Any], shape: Shape, ranks: int, *, bf16: bool) -> Engine:
        """The engine of a DeepSpeed file; `bf16` is the trainer's, for the file's `auto`.

        Defaults are those of deepspeed/runtime/zero/config.py. `auto` is filled as transformers does it
        (`HfTrainerDeepSpeedConfig.trainer_config_finalize`).
        """
        zero = content.get("zero_optimization", {})
        enabled = content.get("bf16", {}).get("enabled", False)
        square = shape.hidden_size**2
        return cls(
            ranks,
            zero.get("stage", 0),
            "bf16" if (bf16 if enabled == "auto" else enabled) else "fp32",
            fp32_sums=content.get("data_types", {}).get("grad_accum_dtype") in FP32_NAMES,
            offload_optimizer=_offloaded(zero, "offload_optimizer"),
            offload_weights=_offloaded(zero, "offload_param"),
            overlap=zero.get("overlap_comm", zero.get("stage") == 3),
            bucket=_filled(zero, "reduce_bucket_size", cls.bucket, auto=square),
            persistence=_filled(
                zero, "stage3_param_persistence_threshold", cls.persistence, auto=10 * shape.hidden_size
            ),
            live=_filled(zero, "stage3_max_live_parameters", cls.live, auto=cls.live),
            sub_group=_filled(zero, "sub_group_size", cls.sub_group, auto=cls.sub_group),
        )

    @property
    def width(self) -> int:
        """Bytes of a weight that is trained, and of its gradient before it is accumulated."""
        return BF16 if self.precision == "bf16" else FP32

    @property
    def sum_width(self) -> int:
        """Bytes of an accumulated gradient under ZeRO-2 and 3."""
        return FP32 if self.fp32_sums else self.width

    @property
    def offload_gradients(self) -> bool:
        """Whether gradients are accumulated in the host's memory, where an offloaded optimizer reads them.

        ZeRO-2 in bf16 with sums in fp32 accumulates them on the GPU (stage_1_and_2.py:
        `_build_compact_grad_partition_buffer`) and copies them before the step.
        """
        on_gpu = self.stage == 2 and self.precision == "bf16" and self.fp32_sums
        return self.offload_optimizer and not on_gpu

    @property
    def bf16_optimizer(self) -> bool:
        """Whether it is DeepSpeed's `BF16_Optimizer`, as in zero1.json: ZeRO-1 with sums in fp32."""
        return self.stage == 1 and self.precision == "bf16" and self.fp32_sums and not self.offload_optimizer

    @property
    def shards(self) -> int:
        """Number of parts into which the optimizer's states are divided."""
        return self.ranks if self.stage else 1


def _offloaded(zero: Mapping[str, Any], section: str) -> bool:
    device: str = zero.get(section, {}).get("device", "none")
    return device != "none"


def _filled(zero: Mapping[str, Any], key: str, default: int, *, auto: int) -> int:
    value = zero.get(key, default)
    return auto if value == "auto" else int(value)
