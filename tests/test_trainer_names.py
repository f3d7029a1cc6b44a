"""The section `trainer:` against the classes of transformers and trl."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import pytest

from llamita.errors import ConfigError
from llamita.settings import StageSettings
from llamita.trainer_names import check_trainer_section
from llamita.yaml_file import read_yaml


class PretrainLike(StageSettings):
    trainer_class: ClassVar[str | None] = "transformers.TrainingArguments"
    trainer_reserved: ClassVar[dict[str, str]] = {"output_dir": "it is the artifact's folder"}


class SftLike(StageSettings):
    trainer_class: ClassVar[str | None] = "trl.SFTConfig"


class RewardLike(StageSettings):
    trainer_class: ClassVar[str | None] = "trl.RewardConfig"


def problem(path: Path, section: str, schema: type[StageSettings]) -> str:
    path.write_text(f"seed: 1\n{section}")
    with pytest.raises(ConfigError) as caught:
        check_trainer_section(read_yaml(path, []), schema)
    return str(caught.value)


@pytest.mark.parametrize("schema", [PretrainLike, SftLike, RewardLike])
def test_trainer_section_against_the_real_class(tmp_path: Path, schema: type[StageSettings]) -> None:
    path = tmp_path / "stage.yaml"
    path.write_text("trainer: {learning_rate: 1e-3, max_steps: 5, lr_scheduler_type: cosine, bf16: false}\n")
    check_trainer_section(read_yaml(path, []), schema)
    section = "trainer:\n  learning_rat: 1e-3\n  max_steps: 1e3\n  lr_scheduler_type: cosin\n  bf16: 'no'\n"
    lines = problem(path, section, schema).splitlines()
    assert f"{path}:3: trainer.learning_rat: " in lines[0]
    assert "did you mean 'learning_rate'" in lines[0]
    assert f"{path}:4: trainer.max_steps: expected int, found 1000.0" in lines[1]
    assert f"{path}:5: trainer.lr_scheduler_type: " in lines[2]
    assert "did you mean 'cosine'" in lines[2]
    assert f"{path}:6: trainer.bf16: expected bool" in lines[3]


def test_trainer_names_that_the_stage_sets_are_refused_with_the_reason(tmp_path: Path) -> None:
    path = tmp_path / "stage.yaml"
    assert (
        f"{path}:3: trainer.output_dir: the stage sets this itself: it is the artifact's folder"
        in problem(path, "trainer:\n  output_dir: x\n", PretrainLike)
    )


def test_choices_of_trl_are_checked(tmp_path: Path) -> None:
    section = "trainer: {loss_type: nl}\n"
    assert "expected one of nll, " in problem(tmp_path / "stage.yaml", section, SftLike)
