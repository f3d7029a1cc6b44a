"""Weights in the host's memory against those of real models, and sizes that the code has, too."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llamita import batches
from llamita.memory import host, passes
from llamita.memory.engine import Engine
from llamita.memory.lora import adapted
from llamita.memory.shape import Shape
from llamita.memory.states import Trained
from llamita.model import saving
from llamita.model.checkpoint import load_causal_lm
from llamita.pretrain import bits_per_byte
from llamita.training.settings import LoraSettings

from ..helpers.paper_shapes import PAPER
from ..helpers.tiny import save_tiny_model

SHAPE = Shape.from_config(PAPER["70B"])


def test_sizes_are_those_of_the_code() -> None:
    assert saving.FILE_SIZE == host.FILE
    assert bits_per_byte.EVALUATED_AT_ONCE == passes.EVALUATED_AT_ONCE
    assert batches._TOKENS_AT_ONCE[0] == passes.SCORED_AT_ONCE


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_loaded_model_is_whole(tmp_path: Path, tokenizer: Any, dtype: str) -> None:
    model = load_causal_lm(save_tiny_model(tmp_path, tokenizer), dtype)
    shape = Shape.from_config(json.loads((tmp_path / "config.json").read_text()))
    trained = Trained.whole(shape) if dtype == "float32" else Trained(shape, 0, shape.parameters)
    held = sum(weight.nbytes for weight in model.parameters())
    for rank in (0, 1):
        assert held == host.loading(trained, Engine(2, 2, "bf16"), rank)


def test_under_zero_3_the_first_rank_has_a_weight_and_a_file() -> None:
    model, engine = Trained.whole(SHAPE), Engine(8, 3, "bf16")
    assert host.loading(model, engine, 0) == 4 * 8192 * 32_000
    assert host.published(model, engine, 0) == 5 * 2**30
    small = Trained.whole(Shape.from_config(PAPER["7B"] | {"num_hidden_layers": 2}))
    assert host.published(small, engine, 0) == 2 * small.trained
    assert host.loading(model, engine, 1) == host.published(model, engine, 1) == 0


def test_only_the_first_rank_collects_and_merges() -> None:
    model, lora = Trained.whole(SHAPE), adapted(SHAPE, LoraSettings())
    assert [host.published(model, Engine(8, 2, "bf16"), rank) for rank in (0, 1)] == [2 * model.trained, 0]
    assert [host.merged(lora, rank) for rank in (0, 1)] == [4 * (model.trained + lora.trained), 0]
