"""The examples in README.md and docs/data.md are valid."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from llamita.config import load_settings
from llamita.runner import pipeline
from llamita.runner.stages import settings_class

from ..helpers.repository import REPOSITORY

BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
DATA = (REPOSITORY / "docs" / "data.md").read_text(encoding="utf-8")


def blocks(text: str, language: str) -> list[str]:
    """The fenced blocks of a page in one language."""
    return [block for name, block in BLOCK.findall(text) if name == language]


def test_own_pipeline_in_the_readme_is_valid(tmp_path: Path) -> None:
    [example] = blocks(README, "yaml")
    config = tmp_path / "pipeline.yaml"
    config.write_text(example, encoding="utf-8")
    on_8_gpus = ["sft.processes=8", f"sft.deepspeed={REPOSITORY}/configs/deepspeed/zero2.json"]
    planned = pipeline.read_pipeline(config, [f"roots.data={tmp_path}", *on_8_gpus], folders_needed=False)
    pipeline.check_trainers(planned)
    assert len(planned) == 3


def test_python_in_the_readme_compiles() -> None:
    [example] = blocks(README, "python")
    compile(example, "README.md", "exec")


@pytest.mark.parametrize("name", ["helpfulness.yaml", "gatt.yaml", "prepare.yaml"])
def test_stage_yamls_in_the_data_page_are_valid(name: str, tmp_path: Path) -> None:
    [example] = [block for block in blocks(DATA, "yaml") if block.startswith(f"# {name}")]
    config = tmp_path / name
    config.write_text(example, encoding="utf-8")
    load_settings(config, settings_class({"helpfulness.yaml": "reward"}.get(name, name[: -len(".yaml")])))
