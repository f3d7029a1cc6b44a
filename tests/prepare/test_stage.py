"""A corpus that is written before training reads it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llamita.prepare import stage
from llamita.prepare.settings import PrepareSettings
from llamita.pretrain import stage as pretrain
from llamita.pretrain.settings import PretrainSettings

from ..helpers.material import PRETRAIN, write_data


def test_a_corpus_that_was_prepared_gives_the_same_model(
    tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    inputs = {"tokenizer": tmp_path / "tokenizer", "data": write_data(tmp_path / "data")}
    for name in ("whole", "corpus", "parts"):
        (tmp_path / name).mkdir()
    trainer = PRETRAIN["trainer"] | {"learning_rate": 1e-2, "max_steps": 4}
    chosen = PRETRAIN | {"trainer": trainer}
    pretrain.run(PretrainSettings.model_validate(chosen), inputs, tmp_path / "whole")
    corpus = {name: PRETRAIN[name] for name in ("documents", "validation", "deduplicate")}
    stage.run(PrepareSettings.model_validate(corpus), inputs, tmp_path / "corpus")
    given = {"tokenizer": inputs["tokenizer"], "corpus": tmp_path / "corpus"}
    chosen |= {"documents": [], "validation": []}
    metrics = pretrain.run(PretrainSettings.model_validate(chosen), given, tmp_path / "parts")
    assert metrics["corpus"]["train"]["documents"] == 100
    assert not (tmp_path / "parts" / "shards").exists()
    weights = [(tmp_path / name / "model" / "model.safetensors").read_bytes() for name in ("whole", "parts")]
    assert weights[0] == weights[1]
