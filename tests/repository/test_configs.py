"""Every YAML that we ship can be read: none has a wrong name, and none lies around unused."""

from __future__ import annotations

from pathlib import Path

import pytest

from llamita.cli import kind_of
from llamita.config import load_settings
from llamita.runner import pipeline, stages
from llamita.training.settings import TrainedSettings
from llamita.yaml_file import read_yaml

from ..helpers.repository import REPOSITORY

CONFIGS = REPOSITORY / "configs"
YAMLS = sorted(CONFIGS.rglob("*.yaml"))
PIPELINES = [path for path in YAMLS if "stages" in read_yaml(path).data]


@pytest.mark.parametrize("path", PIPELINES, ids=lambda path: str(path.relative_to(CONFIGS)))
def test_pipelines_load_with_all_their_stages(path: Path) -> None:
    planned = pipeline.read_pipeline(path, folders_needed=False)
    pipeline.check_trainers(planned)
    assert planned


@pytest.mark.parametrize("path", YAMLS, ids=lambda path: str(path.relative_to(CONFIGS)))
def test_every_yaml_is_a_pipeline_its_stage_or_a_stage_started_alone(path: Path) -> None:
    if path in PIPELINES:
        return
    used = {
        item.yaml_file.path for one in PIPELINES for item in pipeline.read_pipeline(one, folders_needed=False)
    }
    if path.resolve() not in used:
        assert not (path.parent / "pipeline.yaml").exists(), (
            f"{path}: the pipeline beside it does not name it"
        )
        load_settings(path, stages.settings_class(kind_of(path)))


def test_no_other_ending() -> None:
    assert list(CONFIGS.rglob("*.yml")) == []


@pytest.mark.parametrize("path", PIPELINES, ids=lambda path: str(path.relative_to(CONFIGS)))
def test_small_runs_write_out_what_the_papers_defaults_would_fill_in(path: Path) -> None:
    sizes = {"learning_rate", "per_device_train_batch_size", "gradient_accumulation_steps"}
    for item in pipeline.read_pipeline(path, folders_needed=False):
        if isinstance(item.stage_run.settings, TrainedSettings):
            assert sizes <= item.stage_run.settings.trainer.keys(), item.yaml_file.path
