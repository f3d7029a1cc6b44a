"""Which options really took effect in a run of `gpu_training.py`, and what is undone after it."""

from __future__ import annotations

import gc
import inspect
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from transformers import TrainerCallback
from transformers.integrations.deepspeed import unset_hf_deepspeed_config
from transformers.models.llama import modeling_llama

from llamita.model.lora import plain
from llamita.training import varlen


@contextmanager
def clean() -> Iterator[None]:
    """Undoes what a run changes outside its own objects, and frees what it has allocated.

    Liger replaces functions in transformers' modules, `torch_compile` sets environment variables that make
    every later trainer compile, and new models are partitioned until the settings of ZeRO-3 are removed.
    """
    environment, llama = dict(os.environ), dict(vars(modeling_llama))
    _free()
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(environment)
        vars(modeling_llama).update(llama)
        unset_hf_deepspeed_config()


def _free() -> None:
    if "torch._dynamo" in sys.modules:
        torch._dynamo.reset()
        torch._dynamo.utils.counters.clear()
    varlen._segments.cache_clear()
    gc.collect()  # model and trainer refer to each other
    if torch.cuda.is_available():
        torch.cuda.init()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


class Effects(TrainerCallback):
    """Reads from the model, after its first step, which kernels and options it runs with.

    Attributes:
        found: seconds of the first step, name of the attention kernel, whether it is torch's `varlen_attn`
            (unknown in compiled models), number of modules with Liger's forward pass, whether the loss is
            Liger's, whether activations are recomputed.
    """

    def __init__(self, trainer: Any) -> None:
        self._trainer = trainer
        self._started = 0.0
        self.found: dict[str, Any] = {}

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self._started = time.monotonic()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        if self.found:
            return
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        model = plain(self._trainer.model)
        modules = list(model.modules())
        self.found = {
            "first_step_seconds": round(time.monotonic() - self._started, 2),
            "kernel": model.config._attn_implementation,
            "varlen_attn": varlen._segments.cache_info().misses > 0,
            "liger_modules": sum(map(_is_ligers, modules)),
            "liger_loss": _is_ligers(model),
            "gradient_checkpointing": any(
                getattr(module, "gradient_checkpointing", False) for module in modules
            ),
        }


def _is_ligers(module: Any) -> bool:
    """Whether a module has Liger's forward pass, which accelerate may have wrapped for autocast."""
    return str(getattr(inspect.unwrap(module.forward), "__module__", "")).startswith("liger_kernel")


def compiled() -> dict[str, int]:
    """What torch has compiled since `clean`: graphs, and places where a graph had to end."""
    if "torch._dynamo" not in sys.modules:
        return {"graphs": 0, "graph_breaks": 0}
    counters = torch._dynamo.utils.counters
    return {
        "graphs": counters["stats"]["unique_graphs"],
        "graph_breaks": sum(counters["graph_break"].values()),
    }


def without_effect(wanted: Mapping[str, Any], kernel: str | None, found: Mapping[str, Any]) -> list[str]:
    """The options of `wanted` (a `trainer` section), and `kernel`, that `found` shows no sign of."""
    signs = {
        "use_liger_kernel": found.get("liger_modules"),
        "gradient_checkpointing": found.get("gradient_checkpointing"),
        "torch_compile": found.get("graphs"),
    }
    missing = [name for name, sign in signs.items() if wanted.get(name) and not sign]
    if kernel is not None and kernel != found.get("kernel"):
        missing.append(f"attn_implementation={kernel}")
    return missing
