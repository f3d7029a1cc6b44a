"""Adapters that SFT trains: loss, frozen weights, invalid settings."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from llamita.errors import ConfigError
from llamita.model.checkpoint import load_causal_lm
from llamita.model.lora import (
    WEIGHTS,
    _write_base_model,
    adapter_head,
    add_adapter,
    base_model_of,
    load_trainable,
    read_base_model,
)
from llamita.training.tracking import Tracker

from ..helpers.lora import LORA, tune
from ..helpers.material import write_data
from ..helpers.tiny import save_tiny_model

pytestmark = pytest.mark.usefixtures("without_wandb")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any) -> Path:
    root = tmp_path_factory.mktemp("lora")
    write_data(root / "data")
    save_tiny_model(root / "base", tokenizer, spread=0.05)
    return root


def test_no_deprecation_warnings_are_shown(root: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_trainable(load_causal_lm, root / "base", LORA, seed=0)
        add_adapter(load_causal_lm(root / "base"), "policy", LORA)


def test_a_full_rank_adapter_reaches_the_loss_of_full_fine_tuning(root: Path, tokenizer: Any) -> None:
    """The frozen output layer of a random model must be wide enough to distinguish tokens."""
    save_tiny_model(root / "wide", tokenizer, spread=0.5)
    losses = [
        tune(root, f"rank_{name}", 200, lora, rate=3e-3, base="wide")["final_loss"]
        for name, lora in (("full", None), ("32", {"r": 32, "lora_alpha": 32}), ("1", {"r": 1}))
    ]
    assert losses[1] == pytest.approx(losses[0], abs=0.05)
    assert losses[2] > losses[0] + 0.1, "a low rank does not"


def test_an_interrupted_stage_resumes_with_its_adapter(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dropping = LORA | {"lora_dropout": 0.1}
    tune(root, "undisturbed", 8, dropping)
    log = Tracker.log

    def killed(self: Tracker, metrics: Any, step: int) -> None:
        if step == 5:
            raise KeyboardInterrupt
        log(self, metrics, step)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Tracker, "log", killed)
        tune(root, "killed", 8, dropping)
    assert not (root / "killed" / "model").exists()
    [checkpoint] = (root / "killed" / "resume").glob("checkpoint-*")
    assert not (checkpoint / "model.safetensors").exists(), "the base_model is not written again and again"
    tune(root, "killed", 8, dropping)
    one, other = (
        (root / name / "model" / "model.safetensors").read_bytes() for name in ("undisturbed", "killed")
    )
    assert one == other


@pytest.mark.parametrize("linked", ["stage", "runs"])
def test_an_adapter_finds_its_base_model_through_links(tmp_path: Path, tokenizer: Any, linked: str) -> None:
    """The run's folder, or the stage's alone, is a link to another disk."""
    save_tiny_model(tmp_path / "a" / "base", tokenizer)
    (tmp_path / "big" / "deep" / "disk").mkdir(parents=True)
    link = tmp_path / "a" / ("runs" if linked == "runs" else "runs/sft.partial")
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(tmp_path / "big" / "deep" / "disk")
    adapter = tmp_path / "a" / "runs" / "sft.partial" / "adapter"
    adapter.mkdir(parents=True)
    base_model = base_model_of(tmp_path / "a" / "base")
    _write_base_model(base_model, adapter)
    assert read_base_model(adapter) == base_model


def test_the_head_of_an_adapter_is_in_fp32(tmp_path: Path) -> None:
    """DeepSpeed trains it in bf16; scores in bf16 would have ties."""
    save_file({"base_model.model.score.weight": torch.ones(1, 4).bfloat16()}, tmp_path / WEIGHTS)
    assert adapter_head(tmp_path).dtype == torch.float32


def test_target_modules_that_no_layer_matches(root: Path) -> None:
    for names in (["q_prog"], ["q_proj", "q_prog"], ".*q_prog"):
        with pytest.raises(ConfigError, match=r"lora: target_modules: .*q_prog"):
            tune(root, "misnamed", 1, LORA | {"target_modules": names})
    with pytest.raises(ConfigError, match=r"lora: target_modules: missing \)"):
        tune(root, "misnamed", 1, LORA | {"target_modules": "(q_proj"})


@pytest.mark.parametrize("names", [["lm_head"], ["q_proj", "lm_head"]])
def test_the_output_layer_can_have_no_adapter(root: Path, names: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"lora: target_modules: lm_head is the output layer"):
        tune(root, "head", 1, LORA | {"target_modules": names})


def test_the_error_names_the_missing_package(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ConfigError, match=r'pip install -c constraints\.txt -e "\.\[lora\]"'):
        tune(root, "without_peft", 1, LORA)
