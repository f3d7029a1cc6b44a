"""Pretraining and fine-tuning of architectures other than Llama: isolated documents, or an error."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from llamita.data.fine_tuning import fine_tuning_dialogues
from llamita.errors import ConfigError
from llamita.model.saving import save_model
from llamita.pretrain import stage as pretrain
from llamita.pretrain.settings import PretrainSettings
from llamita.reward import stage as reward
from llamita.reward.settings import RewardSettings
from llamita.sft import stage as sft
from llamita.sft.settings import SftSettings

from .helpers.architectures import tiny_architecture
from .helpers.chatml import chatml_tokenizer
from .helpers.material import HELPFULNESS, PRETRAIN, SFT, write_data
from .helpers.packed import packed

pytestmark = pytest.mark.usefixtures("without_wandb")

SIZE = {"vocab_size": 400, "max_position_embeddings": 256}
ONE_STEP = {"max_steps": 1, "per_device_train_batch_size": 16, "learning_rate": 1e-9, "logging_steps": 1}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("architectures") / "data")


def saved(name: str, folder: Path) -> Any:
    model = tiny_architecture(name, **SIZE)
    save_model(model, chatml_tokenizer(), folder / "model")
    return model


def run(stage: Any, settings: Any, values: dict[str, Any], folder: Path, data: Path) -> dict[str, Any]:
    out = folder / "out"
    out.mkdir()
    return stage.run(settings.model_validate(values), {"model": folder, "data": data}, out)


def loss_of_dialogues_alone(model: Any, data: Path) -> float:
    """The mean over all trained tokens of the data of `SFT`, with one dialogue per row."""
    model.set_attn_implementation("eager")  # transformers 5.17 lets sdpa ignore Gemma 2's softcap
    settings = SftSettings.model_validate(SFT)
    dialogues = list(fine_tuning_dialogues(settings, {"data": data}))
    rows, _ = packed(chatml_tokenizer(), dialogues, 128, context_length=256, one_per_row=True)
    total, count = 0.0, 0
    for row in rows:
        end = int(np.flatnonzero(row["position_ids"] == 0)[-1]) or 128
        ids, labels = (torch.from_numpy(row[key][:end]).long() for key in ("input_ids", "labels"))
        with torch.no_grad():
            logits = model(input_ids=ids[None], use_cache=False).logits[0, :-1]
        total += float(torch.nn.functional.cross_entropy(logits, labels[1:], reduction="sum"))
        count += int((labels[1:] != -100).sum())
    return total / count


@pytest.mark.parametrize("name", ["mistral", "gemma2", "gpt_oss", "persimmon", "lfm2"])
def test_the_loss_of_sft_equals_that_of_single_dialogues(name: str, tmp_path: Path, data: Path) -> None:
    model = saved(name, tmp_path)
    trainer = ONE_STEP | {"per_device_train_batch_size": 64}
    found = run(sft, SftSettings, SFT | {"max_length": 128, "trainer": trainer}, tmp_path, data)
    assert found["final_loss"] == pytest.approx(loss_of_dialogues_alone(model, data), rel=1e-3)


def test_models_that_carry_state_have_one_dialogue_per_row(tmp_path: Path, data: Path) -> None:
    saved("lfm2", tmp_path)
    values = SFT | {"max_length": 128, "trainer": ONE_STEP, "attn_implementation": "packed"}
    with pytest.raises(
        ConfigError, match=r"attn_implementation: packed joins the rows .* set it to sdpa or eager"
    ):
        run(sft, SftSettings, values, tmp_path, data)


def pretraining(**changes: Any) -> dict[str, Any]:
    kept = {key: value for key, value in PRETRAIN.items() if key != "model"}
    return kept | {"trainer": ONE_STEP} | changes


def test_pretraining_rejects_models_that_cannot_isolate_documents(tmp_path: Path, data: Path) -> None:
    saved("lfm2", tmp_path)
    with pytest.raises(ConfigError, match=r"Lfm2ForCausalLM .* set `cross_document_attention: true`"):
        run(pretrain, PretrainSettings, pretraining(), tmp_path, data)


def test_pretraining_joins_documents_if_the_settings_allow_it(tmp_path: Path, data: Path) -> None:
    saved("lfm2", tmp_path)
    found = run(pretrain, PretrainSettings, pretraining(cross_document_attention=True), tmp_path, data)
    assert found["steps"] == 1


def test_held_out_documents_are_isolated_too(tmp_path: Path, data: Path) -> None:
    """GPT-OSS joins them with its own kernel, with which the saved model is loaded."""
    saved("gpt_oss", tmp_path)
    found = run(pretrain, PretrainSettings, pretraining(eval_steps=1), tmp_path, data)
    rows = [json.loads(line) for line in (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()]
    logged = [row["eval/bits_per_byte"] for row in rows if "eval/bits_per_byte" in row]
    assert logged == [pytest.approx(found["validation_bits_per_byte"], rel=1e-5)]


@pytest.mark.parametrize("stage", ["pretrain", "sft", "reward"])
def test_rows_beyond_longropes_short_factors_raise_an_error(stage: str, tmp_path: Path, data: Path) -> None:
    saved("phi3", tmp_path)
    with pytest.raises(ConfigError, match=r"_length: \d+ is above the model's context of 24"):
        if stage == "pretrain":
            run(pretrain, PretrainSettings, pretraining(), tmp_path, data)
        elif stage == "sft":
            run(sft, SftSettings, SFT | {"max_length": 128}, tmp_path, data)
        else:
            run(reward, RewardSettings, HELPFULNESS | {"max_length": 100}, tmp_path, data)
