"""Adapters: what is trained, and what ranks hold with LoRA under the ZeRO files."""

from __future__ import annotations

from pathlib import Path

import pytest

from llamita.deepspeed_file import DeepSpeedFile
from llamita.memory import states
from llamita.memory.engine import Engine
from llamita.memory.lora import adapted
from llamita.memory.shape import Shape
from llamita.training.settings import LoraSettings

from ..helpers.held_bytes import LORA
from ..helpers.held_bytes import SHAPE as CONFIG
from ..helpers.rank_processes import on_ranks
from ..helpers.repository import zero_file


@pytest.mark.long
@pytest.mark.parametrize("ranks", [1, 2])
def test_ranks_hold_what_is_predicted(ranks: int, tmp_path: Path) -> None:
    """Of adapters of more than two million parameters on a base model of five million."""
    cases = [(kind, zero_file(stage)) for kind in ("sft", "reward") for stage in (2, 3)]
    found = on_ranks("held_bytes.py", ranks, tmp_path, *(":".join(case) for case in cases))
    for held in found:
        for (kind, file), parts in zip(cases, held, strict=True):
            shape = Shape.from_config(CONFIG | {"model_type": "llama"}, scores=kind == "reward")
            model = adapted(shape, LoraSettings(**LORA))
            engine = Engine.of_file(DeepSpeedFile.read(file).content, shape, ranks, bf16=True)
            expected = {
                "weights": states.weights(model, engine),
                "optimizer": states.optimizer(model, engine),
                "gradients": states.gradients(model, engine) + states.waiting_buffers(model, engine),
            }
            assert model.trained > 2_000_000
            assert parts == pytest.approx(expected, rel=0.05), (kind, file)
