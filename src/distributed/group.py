"""The process group and the collectives that stages need.

A single process without a launcher has world size 1; collectives then return their input at once.
"""

from __future__ import annotations

import atexit
import itertools
import os
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed

from ..errors import ConfigError, LlamitaError
from ..processes import ACTIVITY, advanced, enter_phase, is_main_process, phase, world_size
from . import store, watchdog

T = TypeVar("T")

MARGIN = 60.0  # seconds that a collective may take longer than the watchdog allows, which names the rank
VISIBLE = 90.0  # seconds after which a file of rank 0 must be visible; NFS caches folders for up to a minute

_makes = itertools.count()

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
        # DeepSpeed 0.19 calls collectives by names that torch 2.13 deprecates
        warnings.filterwarnings("ignore", category=FutureWarning, message="`torch.distributed")
    if not torch.cuda.is_available():  # otherwise DeepSpeed, once imported, warns that it found no GPU
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    enter_phase("loading")
    if world_size() == 1 and deepspeed is None:
        return
    if torch.distributed.is_initialized():
        return
    from accelerate import PartialState

    timeout = timedelta(seconds=watchdog.time_limit + MARGIN)
    if torch.cuda.is_available():
        PartialState(timeout=timeout)
        global _cpu_group
        _cpu_group = torch.distributed.new_group(backend="gloo", timeout=timeout)
    else:
        if deepspeed is not None:
            _without_compiler()
        PartialState(backend="gloo", timeout=timeout)
    if deepspeed is not None:
        _limit_deepspeeds_group(timeout)
    atexit.register(shutdown)


def _limit_deepspeeds_group(timeout: timedelta) -> None:
    """Sets the limit of the group that all of ZeRO's collectives use: a copy, with torch's default limit."""
    from deepspeed.utils import groups
    from torch.distributed.distributed_c10d import _set_pg_timeout

    _set_pg_timeout(timeout, groups._clone_world_group())


def _without_compiler() -> None:
    """Prevents DeepSpeed from compiling a kernel at its first start on a CPU.

    The kernel is for inference only and takes half a minute to compile. A process that is killed meanwhile
    leaves a lock on which every later start waits forever.
    """
    import deepspeed.ops

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False


def once(what: str, make: Callable[[], T]) -> T:
    """Returns what `make` returns on rank 0; the other ranks don't call it and get a copy (must pickle).

    They poll the store meanwhile: no collective is pending, so `make` may take hours. `what` names the phase.
    Every rank calls it, in the same order; also before `setup`. An error of rank 0 is raised on all ranks.
    """
    with phase(what):
        if world_size() == 1:
            return make()
        key = f"once/{next(_makes)}/{what}"
        if not is_main_process():
            ACTIVITY.polls = True
            try:
                result: T = store.poll(key)
            finally:
                ACTIVITY.polls = False
            return result
        try:
            result = make()
        except Exception as error:
            store.put(key, None, error)
            raise
        store.put(key, result)
        return result


def wait_until_visible(path: Path) -> None:
    """Waits until this rank sees a file or folder of rank 0; network file systems can hide it for a minute.

    An opened file needs no waiting: NFS checks at every `open` whether its cached content is still valid.
    Raises LlamitaError if it stays invisible.
    """
    end = time.monotonic() + VISIBLE
    while not path.exists():
        if time.monotonic() > end:
            raise LlamitaError(
                f"{path}: rank 0 wrote it, but this rank can't see it; all ranks need the same file system"
            )
        for folder in (path.parent.parent, path.parent):
            with suppress(OSError):
                list(folder.iterdir())  # makes NFS read the folder again
        time.sleep(0.2)


def barrier() -> None:
    """Waits until every rank has called it."""
    if torch.distributed.is_initialized():
        torch.distributed.barrier()
        advanced()


def all_reduce_sum(values: torch.Tensor) -> torch.Tensor:
    """The sum of `values` (any shape, numeric) over all ranks, on every rank; `values` is not changed."""
    return _all_reduce(values, torch.distributed.ReduceOp.SUM)


def all_reduce_max(values: torch.Tensor) -> torch.Tensor:
    """The elementwise largest `values` (any shape, numeric) of all ranks; `values` is not changed."""
    return _all_reduce(values, torch.distributed.ReduceOp.MAX)


def _all_reduce(values: torch.Tensor, operation: Any) -> torch.Tensor:
    if not torch.distributed.is_initialized():
        return values
    result = values.detach().clone()
    group = _cpu_group if result.device.type == "cpu" else None
    torch.distributed.all_reduce(result, operation, group=group)
    return result


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
