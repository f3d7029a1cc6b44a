"""Models that are not trained and that ZeRO-3 has partitioned."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaForCausalLM

from llamita.model import sharded
from llamita.model.frozen import free_partitioned, load_partitioned, missing_passes, run_partitioned
from llamita.processes import rank

from ..helpers.tiny import tiny_model
from ..helpers.two_ranks import on_two_deepspeed_ranks, on_two_ranks


def model() -> Any:
    """A partitioned model, after as many passes as DeepSpeed needs to remember their order."""
    config = tiny_model().config
    loaded = load_partitioned(lambda: sharded.build(LlamaForCausalLM, config), bf16=False)
    run_partitioned(loaded, bf16=False)
    with torch.no_grad():
        for _ in range(2):
            loaded(input_ids=torch.ones(1, 4, dtype=torch.long))
    return loaded


def test_memory_of_partitioned_models_is_freed(tmp_path: Path) -> None:
    """But for the last one with DeepSpeed 0.19.2, which keeps it until another model is loaded."""

    def alive() -> list[bool]:
        weights = [weakref.ref(model().get_output_embeddings().weight) for _ in range(3)][:2]
        gc.collect()
        kept = all(weight() is not None for weight in weights)  # or nobody has to free them
        free_partitioned()
        return [kept, *(weight() is not None for weight in weights)]

    assert on_two_deepspeed_ranks(alive, tmp_path) == [[True, False, False]] * 2


def test_ranks_add_what_they_lack_of_the_largest_number_of_passes(tmp_path: Path) -> None:
    assert on_two_ranks(lambda: missing_passes([5, 2][rank()]), tmp_path) == [0, 3]
