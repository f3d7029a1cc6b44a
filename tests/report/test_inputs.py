"""The report accepts any stages of a run as inputs, under any names."""

from __future__ import annotations

from pathlib import Path

import pytest

from llamita.errors import ConfigError
from llamita.report.settings import ReportSettings
from llamita.runner import stages
from llamita.runner.pipeline import read_pipeline

PIPELINE = """
name: ablations
stages:
  - {name: world, stage: world, config: world.yaml}
  - name: report
    stage: report
    config: report.yaml
    inputs: {world: world, sft_big: world, anything: world}
"""


def test_a_pipeline_gives_the_report_an_ablation(tmp_path: Path) -> None:
    (tmp_path / "pipeline.yaml").write_text(PIPELINE)
    for name in ("world", "report"):
        (tmp_path / f"{name}.yaml").write_text("{}")
    *_, report = read_pipeline(tmp_path / "pipeline.yaml")
    assert list(report.stage_run.inputs) == ["world", "sft_big", "anything"]


def test_other_stages_reject_unknown_input_names(tmp_path: Path) -> None:
    (tmp_path / "pipeline.yaml").write_text(PIPELINE.replace("stage: report", "stage: tokenizer"))
    (tmp_path / "world.yaml").write_text("{}")
    (tmp_path / "report.yaml").write_text("{vocab_size: 400, documents: [{path: a, format: text}]}")
    with pytest.raises(ConfigError, match="no such input"):
        read_pipeline(tmp_path / "pipeline.yaml")


def test_any_input_name_is_accepted() -> None:
    assert stages.check_inputs("report", ReportSettings(), {"sft_big": "x", "äöü": "y"}) is None
