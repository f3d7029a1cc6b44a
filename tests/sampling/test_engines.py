"""Where the weights are that engines sample from."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaForCausalLM

from llamita.distributed.device import device
from llamita.sampling import engines
from llamita.sampling.engines import Samplers

from ..helpers.rlhf import ppo
from ..helpers.tiny import tiny_model


@pytest.mark.parametrize(("engine", "moves"), [("builtin", []), ("generate", [device()])])
def test_only_a_model_that_is_sampled_itself_moves_to_the_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: str, moves: list[torch.device]
) -> None:
    """A model whose weights are copied stays in the host's memory, and is freed."""
    moved: list[torch.device] = []
    loaded: list[weakref.ref[Any]] = []

    def load(_: Path, __: str) -> Any:
        model = tiny_model()
        loaded.append(weakref.ref(model))
        return model

    def to(model: Any, where: torch.device) -> Any:
        moved.append(where)
        return model

    monkeypatch.setattr(engines, "load_causal_lm", load)
    monkeypatch.setattr(LlamaForCausalLM, "to", to)
    settings = ppo(sampler={"engine": engine})
    with Samplers(settings, dtype="float32", working=tmp_path) as samplers:
        sampler = samplers.of(tmp_path)
        gc.collect()
        assert moved == moves
        assert (loaded[0]() is None) == (engine == "builtin")
        assert sampler.sample([[1, 5]], 4).answer_ids
