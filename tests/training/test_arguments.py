"""What a `trainer:` section becomes."""

from __future__ import annotations

import dataclasses
import warnings
from pathlib import Path

import pytest
import torch
from transformers import TrainingArguments
from trl import RewardConfig, SFTConfig

from llamita.errors import ConfigError
from llamita.training.arguments import TO_A_TENTH, training_arguments
from llamita.training.settings import PACKED, RESERVED, TOKENIZED

KINDS = [TrainingArguments, SFTConfig, RewardConfig]


@pytest.mark.parametrize("kind", KINDS)
def test_the_papers_optimizer_and_nothing_that_the_machine_lacks(tmp_path: Path, kind: type):
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


def test_the_section_goes_over_the_stage_over_the_paper(tmp_path: Path):
    section = {"learning_rate": 1e-3, "weight_decay": 0.0, "max_steps": 7}
    arguments = training_arguments(TrainingArguments, section, tmp_path, 0, **TO_A_TENTH, warmup_steps=5)
    assert (arguments.learning_rate, arguments.weight_decay, arguments.max_steps) == (1e-3, 0.0, 7)
    assert arguments.warmup_steps == 5
    assert arguments.lr_scheduler_type == "cosine_with_min_lr"
    assert arguments.lr_scheduler_kwargs == {"min_lr_rate": 0.1}
    linear = training_arguments(TrainingArguments, {"lr_scheduler_type": "linear"}, tmp_path, 0, **TO_A_TENTH)
    assert not linear.lr_scheduler_kwargs  # those of the cosine don't fit a line


def test_an_impossible_combination_is_a_config_error(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"trainer: .*warmup_steps"):
        training_arguments(TrainingArguments, {"warmup_steps": -1}, tmp_path, 0)


def test_reserved_names_exist():
    names = {kind: {field.name for field in dataclasses.fields(kind)} for kind in KINDS}
    assert names[TrainingArguments] >= RESERVED.keys()
    assert names[SFTConfig] >= PACKED.keys() | TOKENIZED.keys()
