"""Validation during and after training."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from llamita.pretrain.settings import PretrainSettings
from llamita.pretrain.validation import Validation

from ..helpers.streams import write_stream
from ..helpers.tiny import tiny_model

LENGTH = 8


@pytest.mark.parametrize("rows", [1, 3])
def test_a_forward_pass_has_as_many_rows_as_in_training(tmp_path: Path, rows: int) -> None:
    """Logits of more rows than training's can fill a GPU that the training itself left half empty."""
    stream = write_stream([[1, 4, 5, 4, 3, 7, 6, 4, 4, 9, 8] * 7], tmp_path, 29, 7)
    corpus: Any = SimpleNamespace(validation=[stream])
    model = tiny_model()
    passes: list[tuple[int, int]] = []
    model.model.embed_tokens.register_forward_pre_hook(lambda _, inputs: passes.append(inputs[0].shape))
    trainer = SimpleNamespace(model=model, args=SimpleNamespace(per_device_train_batch_size=rows))
    settings = PretrainSettings.model_construct(context_length=LENGTH)
    stand_ins: Any = (trainer, corpus, None)
    Validation(*stand_ins, settings=settings, size=100).bits_per_byte()
    windows = -(-(stream.tokens - 1) // LENGTH)
    assert len(passes) == -(-windows // rows)
    assert max(passes) == (rows, LENGTH)
