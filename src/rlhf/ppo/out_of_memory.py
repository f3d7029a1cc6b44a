"""Out of memory in PPO: what was running, what was allocated, and which settings lower it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch

from ...distributed.device import device
from ...errors import LlamitaError
from ...processes import ACTIVITY
from ...sampling.settings import VllmEngine
from .settings import PpoSettings

GIB = 2**30
SAMPLING = "sampling"  # phase of the sampler, and of passing it the weights


class Advice(NamedTuple):
    """A change of a setting, whether it is still possible, and whether it helps the sampler or the rest."""

    change: str
    possible: bool
    sampling: bool
    training: bool


@contextmanager
def explained(settings: PpoSettings, what: str) -> Iterator[None]:
    """Context that turns an out-of-memory error into a LlamitaError with advice; `what` names the work."""
    before = _allocated()
    try:
        yield
    except RuntimeError as error:  # NCCL and cuBLAS raise other subclasses than torch's allocator
        if not is_out_of_memory(error):
            raise
        raise LlamitaError(_message(settings, what, error, before=before)) from error


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that a GPU's or the host's memory is exhausted."""
    texts = ("out of memory", "can't allocate memory")
    return isinstance(error, torch.OutOfMemoryError) or any(text in str(error).lower() for text in texts)


def _message(settings: PpoSettings, what: str, error: BaseException, *, before: int) -> str:
    changes = "; ".join(
        f"({number}) {change}" for number, change in enumerate(advice(settings, ACTIVITY.phase), start=1)
    )
    held = ""
    if device().type == "cuda":
        total = torch.cuda.get_device_properties(device()).total_memory
        held = (
            f"{_allocated() / GIB:.1f} of {total / GIB:.1f} GiB of the GPU were allocated, "
            f"{before / GIB:.1f} of them by models and optimizers before; "
        )
    first = str(error).splitlines()[0]
    return f"out of memory in {what} ({ACTIVITY}): {held}{first} To use less, most effective first: {changes}"


def advice(settings: PpoSettings, phase: str) -> list[str]:
    """Changes of settings that lower the memory in a phase, the most effective first."""
    stage = "a higher ZeRO stage in the file of deepspeed" if settings.deepspeed else "deepspeed with ZeRO-3"
    frozen = "sharded" if settings.deepspeed else "offloaded"
    half, own = settings.sampling_cache_tokens // 2, not isinstance(settings.sampler, VllmEngine)
    tokens = settings.max_tokens_per_micro_batch
    fewer = "a lower max_tokens_per_micro_batch" if tokens else "max_tokens_per_micro_batch"
    changes = [
        Advice(f"sampling_cache_tokens: {half}", own and half >= 1, True, False),
        Advice("sampler: {engine: vllm, …}, servers on other GPUs", own, True, False),
        Advice(fewer, settings.micro_batch_size != 1, False, True),
        Advice("gradient_checkpointing: true", not settings.gradient_checkpointing, False, True),
        Advice("dtype: bfloat16", settings.dtype == "float32", True, True),
        Advice(f"frozen_models: {frozen}", settings.frozen_models == "whole", True, True),
        Advice(stage, True, True, True),
        Advice("lora, which trains adapters on one shared model", settings.lora is None, True, True),
        Advice("a lower max_new_tokens or max_prompt_length", True, True, True),
    ]
    return [
        one.change
        for one in changes
        if one.possible and (one.sampling if phase == SAMPLING else one.training)
    ]


def _allocated() -> int:
    """Bytes that torch has allocated on this rank's GPU; 0 on a CPU."""
    return torch.cuda.memory_allocated(device()) if device().type == "cuda" else 0
