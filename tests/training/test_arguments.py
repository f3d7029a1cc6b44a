"""Conversion of a `trainer:` section to arguments."""

from __future__ import annotations

import dataclasses
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import TrainingArguments
from trl import RewardConfig, SFTConfig

from llamita.distributed.device import report_slow_bf16
from llamita.errors import ConfigError
from llamita.pretrain.settings import PretrainSettings
from llamita.reward.settings import RewardSettings
from llamita.rlhf.rejection.settings import RejectionSettings
from llamita.sft.settings import SftSettings
from llamita.training import arguments
from llamita.training.arguments import trainer_section, training_arguments
from llamita.training.settings import PACKED, RESERVED, TOKENIZED, TrainedSettings

KINDS = [TrainingArguments, SFTConfig, RewardConfig]


@pytest.mark.parametrize("kind", KINDS)
def test_defaults_are_the_papers_optimizer_and_fit_the_machine(tmp_path: Path, kind: type):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        arguments = training_arguments(kind, {}, tmp_path, seed=5)
    assert (arguments.adam_beta1, arguments.adam_beta2, arguments.adam_epsilon) == (0.9, 0.95, 1e-5)
    assert (arguments.weight_decay, arguments.max_grad_norm) == (0.1, 1.0)
    assert arguments.seed == 5
    assert arguments.bf16 == torch.cuda.is_available()
    if not torch.cuda.is_available():
        assert arguments.device.type == "cpu"
        assert not arguments.gradient_checkpointing


@pytest.mark.skipif(torch.cuda.is_available(), reason="on a GPU nothing is reported")
def test_bf16_on_a_cpu_without_its_instructions_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("llamita.distributed.device._has_bf16", lambda: False)
    for bf16 in (False, True):
        report_slow_bf16.cache_clear()
        training_arguments(TrainingArguments, {"bf16": bf16}, tmp_path, seed=0)
        assert ("no instructions for bfloat16" in capsys.readouterr().out) == bf16


SOURCE = [{"path": "x.jsonl", "format": "messages"}]
PRETRAIN = PretrainSettings.model_validate({"documents": SOURCE, "validation": SOURCE})
SFT = SftSettings.model_validate({"dialogues": SOURCE})
REWARD = RewardSettings.model_validate({"kind": "safety", "comparisons": SOURCE, "held_out": 1})
REJECTION = RejectionSettings.model_validate(
    {
        "prompts": SOURCE,
        "dialogues": SOURCE,
        "prompts_per_round": 1,
        "max_new_tokens": 8,
        "trainer": {"max_steps": 10},
    }
)


@pytest.mark.parametrize(
    ("settings", "kind", "rate", "warm_up", "schedule", "epochs", "rows", "accumulation"),
    [
        (PRETRAIN, TrainingArguments, 3e-4, 2000, "cosine_with_min_lr", 1, 1, 1024),
        (SFT, SFTConfig, 2e-5, 0, "cosine", 2, 1, 64),
        (REJECTION, SFTConfig, 2e-5, 0, "cosine", 2, 1, 64),
        (REWARD, RewardConfig, 1e-5, 0, "cosine_with_min_lr", 1, 1, 512),  # warm-up: by the number of pairs
    ],
    ids=["pretrain", "sft", "rejection", "reward"],
)
def test_an_empty_section_gives_the_papers_settings(
    tmp_path: Path,
    settings: TrainedSettings,
    kind: type,
    rate: float,
    warm_up: int,
    schedule: str,
    epochs: int,
    rows: int,
    accumulation: int,
):
    found = training_arguments(kind, trainer_section(settings), tmp_path, seed=0)
    assert (found.learning_rate, found.warmup_steps) == (rate, warm_up)
    assert (found.lr_scheduler_type, found.num_train_epochs) == (schedule, epochs)
    if schedule == "cosine_with_min_lr":
        assert found.lr_scheduler_kwargs == {"min_lr_rate": 0.1}
    assert found.per_device_train_batch_size == rows
    assert found.gradient_accumulation_steps == accumulation


@pytest.mark.parametrize(
    ("changes", "ranks", "rows", "accumulation"),
    [
        ({}, 8, 1, 8),
        ({"max_length": 1024}, 8, 4, 2),
        ({"max_length": 1024}, 32, 2, 1),  # four rows on each rank would be more than the paper's 64
        ({}, 24, 1, 3),  # 72 rows: nearer to 64 than 48
        ({}, 100, 1, 1),
        ({"max_length": 8192}, 8, 1, 8),
        ({"max_length": 104}, 1, 32, 2),  # twice the 39 rows that 4,096 tokens hold would be 78
        ({"trainer": {"per_device_train_batch_size": 4}}, 8, 4, 1),
        ({"trainer": {"gradient_accumulation_steps": 5}, "max_length": 2048}, 8, 2, 5),
        ({"trainer": {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 3}}, 8, 4, 3),
    ],
)
def test_accumulation_reaches_the_papers_batch_if_no_batch_size_is_set(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    changes: dict[str, Any],
    ranks: int,
    rows: int,
    accumulation: int,
):
    monkeypatch.setattr(arguments, "world_size", lambda: ranks)
    settings = SftSettings.model_validate({"dialogues": SOURCE, **changes})
    found = training_arguments(SFTConfig, trainer_section(settings), tmp_path, seed=0)
    assert found.per_device_train_batch_size == rows
    assert found.gradient_accumulation_steps == accumulation
    message = f"a step has {rows * accumulation * ranks} rows"
    assert (message in capsys.readouterr().out) == ("trainer" not in changes)


def test_the_section_overrides_the_stage_and_the_stage_the_paper(tmp_path: Path):
    section = {"learning_rate": 1e-3, "weight_decay": 0.0, "max_steps": 7}
    changed = PRETRAIN.model_copy(update={"trainer": section})
    found = training_arguments(TrainingArguments, trainer_section(changed), tmp_path, seed=0)
    assert (found.learning_rate, found.weight_decay, found.max_steps) == (1e-3, 0.0, 7)
    assert (found.warmup_steps, found.adam_beta2) == (2000, 0.95)
    settings = PRETRAIN.model_copy(update={"trainer": {"lr_scheduler_type": "linear"}})
    linear = training_arguments(TrainingArguments, trainer_section(settings), tmp_path, seed=0)
    assert not linear.lr_scheduler_kwargs  # those of the cosine don't fit a linear schedule


def test_an_impossible_combination_is_a_config_error(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"trainer: .*warmup_steps"):
        training_arguments(TrainingArguments, {"warmup_steps": -1}, tmp_path, seed=0)


def test_one_process_takes_one_gpu_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    found = training_arguments(SFTConfig, {}, tmp_path, seed=0)
    assert "GPU" not in capsys.readouterr().out
    found._n_gpu = 4  # what transformers finds without a launcher
    arguments.take_one_gpu(found)
    assert found.n_gpu == 1
    assert found.train_batch_size == found.per_device_train_batch_size
    assert "this process uses one of 4 GPUs" in " ".join(capsys.readouterr().out.split())


def test_reserved_names_exist():
    names = {kind: {field.name for field in dataclasses.fields(kind)} for kind in KINDS}
    assert names[TrainingArguments] >= RESERVED.keys()
    assert names[SFTConfig] >= PACKED.keys() | TOKENIZED.keys()
