"""The process group and the collectives that stages need.

A single process without a launcher has world size 1; collectives then return their input at once.
"""

from __future__ import annotations

import atexit
import os
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed

from ..errors import ConfigError
from ..processes import world_size

T = TypeVar("T")

TIMEOUT = timedelta(hours=2)  # the main rank may prepare data or save a model while the others wait

_cpu_group: Any = None  # beside NCCL's: sums CPU tensors on the CPU, without waiting for a GPU


def setup(deepspeed: str | None = None) -> None:
    """Joins the process group; must be called before TrainingArguments or an engine is created.

    `deepspeed` is the path of a ZeRO file, if one is used. On CPUs the gloo group must exist before
    TrainingArguments, which otherwise assumes a single rank. Raises ConfigError if a ZeRO file is set but the
    process was not started by a launcher.
    """
    if deepspeed is not None:
        if "RANK" not in os.environ:
            raise ConfigError(
                f"deepspeed: {deepspeed} needs the DeepSpeed launcher; "
                "start the stage through launch/deepspeed.sh or `llamita run`"
            )
        os.environ["ACCELERATE_USE_DEEPSPEED"] = "true"
    if not torch.cuda.is_available():  # otherwise DeepSpeed, once imported, warns that it found no GPU
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    if world_size() == 1 and deepspeed is None:
        return
    if torch.distributed.is_initialized():
        return
    from accelerate import PartialState

    if torch.cuda.is_available():
        PartialState(timeout=TIMEOUT)
        global _cpu_group
        _cpu_group = torch.distributed.new_group(backend="gloo", timeout=TIMEOUT)
    else:
        if deepspeed is not None:
            _without_compiler()
        PartialState(backend="gloo", timeout=TIMEOUT)
    atexit.register(shutdown)


def _without_compiler() -> None:
    """Prevents DeepSpeed from compiling a kernel at its first start on a CPU.

    The kernel is for inference only and takes half a minute to compile. A process that is killed meanwhile
    leaves a lock on which every later start waits forever.
    """
    import deepspeed.ops

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False


def barrier() -> None:
    """Waits until every rank has called it."""
    if torch.distributed.is_initialized():
        torch.distributed.barrier()


def all_reduce_sum(values: torch.Tensor) -> torch.Tensor:
    """The sum of `values` (any shape, numeric) over all ranks, on every rank; `values` is not changed."""
    if not torch.distributed.is_initialized():
        return values
    total = values.detach().clone()
    torch.distributed.all_reduce(total, group=_cpu_group if total.device.type == "cpu" else None)
    return total


def gather_rows(rows: list[T]) -> list[T]:
    """The rows (any picklable objects) of all ranks in the order of ranks, on every rank."""
    if not torch.distributed.is_initialized():
        return rows
    parts: list[list[T]] = [[] for _ in range(world_size())]
    torch.distributed.all_gather_object(parts, rows)
    return [row for part in parts for row in part]


def shutdown() -> None:
    """Leaves the process group, so that other ranks don't wait for this one; may be called twice."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
