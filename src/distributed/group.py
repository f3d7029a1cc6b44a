"""The process group, and the few collectives that stages need.

One process without a launcher is world size 1, and every function here then does nothing or answers at once.
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

TIMEOUT = timedelta(hours=2)  # the main rank may prepare data or save while the others wait

_cpu_group: Any = None  # beside NCCL's: what is on the CPU is summed there, and no GPU has to catch up first


def setup(deepspeed: str | None = None) -> None:
    """Joins the process group; to be called before any TrainingArguments or engine is made.

    `deepspeed` is the path of a ZeRO file, if one is used. On the CPU the group must stand, on gloo, before
    TrainingArguments: otherwise every rank believes that it is alone. Raises ConfigError where a ZeRO file is
    given but no launcher is at work.
    """
    if deepspeed is not None:
        if "RANK" not in os.environ:
            raise ConfigError(
                f"deepspeed: {deepspeed} needs the DeepSpeed launcher; "
                "start the stage through launch/deepspeed.sh or `llamita run`"
            )
        os.environ["ACCELERATE_USE_DEEPSPEED"] = "true"
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
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
        if deepspeed is not None:
            _without_compiler()
        PartialState(backend="gloo", timeout=TIMEOUT)
    atexit.register(shutdown)


def _without_compiler() -> None:
    """Keeps DeepSpeed from compiling a kernel at its first start on a CPU.

    It serves inference only, takes half a minute, and whoever is killed meanwhile leaves a lock that every
    later start waits on for ever.
    """
    import deepspeed.ops

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False


def barrier() -> None:
    """Waits until every rank is here."""
    if torch.distributed.is_initialized():
        torch.distributed.barrier()


def all_reduce_sum(values: torch.Tensor) -> torch.Tensor:
    """The sum of `values` (any shape, numeric) over all ranks, on every rank; `values` stays as it is."""
    if not torch.distributed.is_initialized():
        return values
    total = values.detach().clone()
    torch.distributed.all_reduce(total, group=_cpu_group if total.device.type == "cpu" else None)
    return total


def gather_rows(rows: list[T]) -> list[T]:
    """The rows (anything that pickles) of all ranks, in the order of ranks, on every rank."""
    if not torch.distributed.is_initialized():
        return rows
    parts: list[list[T]] = [[] for _ in range(world_size())]
    torch.distributed.all_gather_object(parts, rows)
    return [row for part in parts for row in part]


def shutdown() -> None:
    """Leaves the process group, so that no rank waits for one that has gone. Harmless when called twice."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
