"""Settings that don't change the result neither discard unfinished work nor rerun finished stages."""

from __future__ import annotations

import dataclasses
import json
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from transformers import TrainingArguments
from trl import RewardConfig, SFTConfig

from llamita.evaluation.settings import EvaluateSettings
from llamita.pretrain.settings import PretrainSettings
from llamita.settings import StageSettings
from llamita.training.arguments import trainer_section
from llamita.training.settings import (
    BATCH,
    NO_EFFECT,
    PACKED,
    PAPER_OPTIMIZER,
    RESERVED,
    TOKENIZED,
    TrainedSettings,
)
from llamita.yaml_file import flatten

from ..helpers.material import PRETRAIN
from ..helpers.rlhf import ppo, rejection

DECIDING = """
    num_train_epochs max_steps learning_rate lr_scheduler_type lr_scheduler_kwargs warmup_steps
    optim optim_args weight_decay adam_beta1 adam_beta2 adam_epsilon optim_target_modules max_grad_norm
    label_smoothing_factor bf16 fp16 tf32 neftune_noise_alpha accelerator_config
    parallelism_config dataloader_in_order label_names ddp_broadcast_buffers fsdp fsdp_config
    router_aux_loss_coef shuffle_dataset loss_type disable_dropout center_rewards_coefficient
""".split()


def test_every_argument_of_the_trainers_is_known_to_change_the_result_or_not() -> None:
    tested = Path(__file__).parents[2].joinpath("constraints.txt").read_text()
    for library in ("transformers", "trl"):
        if f"{library}=={metadata.version(library)}\n" not in tested:
            pytest.skip(f"{library}: other names than those of constraints.txt")
    names = {
        field.name
        for kind in (TrainingArguments, SFTConfig, RewardConfig)
        for field in dataclasses.fields(kind)
    }
    names -= {*RESERVED, *PACKED, *TOKENIZED, *(name.removeprefix("trainer.") for name in BATCH)}
    names -= {field.name for field in dataclasses.fields(TrainingArguments) if not field.init}
    without_effect = {name.removeprefix("trainer.") for name in NO_EFFECT}
    assert not without_effect & set(DECIDING)
    assert names - without_effect == set(DECIDING)
    assert without_effect <= names


def decisive(settings: StageSettings, resuming: bool = False) -> dict[str, Any]:
    return settings.decisive(settings.fingerprinted(), resuming)


@pytest.mark.parametrize(
    "change",
    [
        {"sampling_cache_tokens": 7},
        {"attn_implementation": "eager"},
        {"keep_every": 5},
        {"trainer.logging_steps": 1},
        {"trainer.save_steps": 7},
        {"trainer.gradient_checkpointing_kwargs": {"use_reentrant": False}},
        {"trainer.per_device_train_batch_size": 2, "trainer.gradient_accumulation_steps": 2},
    ],
)
def test_work_is_kept_if_the_result_is_unchanged(change: dict[str, Any]) -> None:
    assert_work_is_kept(rejection(), rejection(**_changed(change)))


@pytest.mark.parametrize(
    "change",
    [
        {"sampling_cache_tokens": 7},
        {"micro_batch_size": 2},
        {"max_tokens_per_micro_batch": 99},
        {"save_iterations": 1},
    ],
)
def test_ppo_keeps_its_work_if_the_result_is_unchanged(change: dict[str, Any]) -> None:
    assert_work_is_kept(ppo(), ppo(**change))


def assert_work_is_kept(before: StageSettings, after: StageSettings) -> None:
    assert flatten(after.fingerprinted()) != flatten(before.fingerprinted())
    assert decisive(after) == decisive(before)
    assert decisive(after, resuming=True) == decisive(before, resuming=True)


@pytest.mark.parametrize(
    ("change", "resumes"),
    [
        ({"trainer.learning_rate": 1e-5}, False),
        ({"trainer.gradient_accumulation_steps": 2}, True),  # the checkpoint's own rows are compared instead
        ({"loss_spike": 5.0}, True),
        ({"dtype": "bfloat16"}, False),
        ({"seed": 3}, False),
    ],
)
def test_settings_that_change_the_result_are_decisive(change: dict[str, Any], resumes: bool) -> None:
    before, after = rejection(), rejection(**_changed(change))
    assert decisive(after) != decisive(before)
    assert (decisive(after, resuming=True) == decisive(before, resuming=True)) is resumes


def test_the_defaults_of_the_trainer_count_whether_written_out_or_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    empty = PretrainSettings.model_validate(PRETRAIN | {"trainer": {}})
    for name, value in (PAPER_OPTIMIZER | PretrainSettings.trainer_defaults).items():
        written = PretrainSettings.model_validate(PRETRAIN | {"trainer": {name: value}})
        assert decisive(written) == decisive(empty)
        assert trainer_section(written) == trainer_section(empty)
    before = decisive(empty)
    other = PretrainSettings.trainer_defaults | {"learning_rate": 1e-3}
    monkeypatch.setattr(PretrainSettings, "trainer_defaults", other)
    assert decisive(empty) != before
    rate = PretrainSettings.model_validate(PRETRAIN | {"trainer": {"learning_rate": 1e-3}})
    assert decisive(rate) == decisive(empty)


def _changed(change: dict[str, Any]) -> dict[str, Any]:
    """Changes of `section.key` as keyword arguments."""
    whole = rejection().model_dump(mode="json", exclude={"inputs", "output"})
    for name, value in change.items():
        section, _, key = name.partition(".")
        if key:
            whole[section][key] = value
        else:
            whole[section] = value
    return whole


def test_more_settings_that_change_no_result() -> None:
    before = PretrainSettings.model_validate(PRETRAIN)
    for change in ({"shard_tokens": 5}, {"eval_steps": 3}):
        assert decisive(PretrainSettings.model_validate(PRETRAIN | change)) == decisive(before)
    more_refused = PretrainSettings.model_validate(PRETRAIN | {"max_bad_rows": 9})
    assert decisive(more_refused, resuming=True) == decisive(before, resuming=True)
    test = {"gold": False, "prompts": {"ordinary": []}, "max_new_tokens": 4}
    batched = EvaluateSettings.model_validate(test | {"sampling_cache_tokens": 3})
    assert decisive(batched) == decisive(EvaluateSettings.model_validate(test))


def test_a_file_of_the_trainer_counts_by_its_content(tmp_path: Path) -> None:
    file = tmp_path / "accelerate.json"
    given = PRETRAIN | {"trainer": {"accelerator_config": str(file)}}
    found = []
    for seed in (1, 2):
        file.write_text(json.dumps({"use_seedable_sampler": True, "data_seed": seed}))
        found.append(decisive(PretrainSettings.model_validate(given)))
    assert found[0] != found[1]


@pytest.mark.parametrize("kept", [0, -1])
def test_a_run_keeps_a_checkpoint(kept: int) -> None:
    with pytest.raises(ValidationError, match=f"save_total_limit: {kept} would keep no checkpoint"):
        TrainedSettings.model_validate({"output": "x", "trainer": {"save_total_limit": kept}})
