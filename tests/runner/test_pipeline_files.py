"""Errors in pipelines, settings and overrides name file, line, key and what is expected."""

from __future__ import annotations

from pathlib import Path

import pytest

from llamita.errors import ConfigError
from llamita.runner import pipeline, schedule

from ..helpers.text_pipeline import problem, replace


@pytest.mark.parametrize(
    ("old", "new", "line", "words"),
    [
        (
            "stage: taker",
            "stage: takr",
            6,
            "stages.1.stage: unknown kind of stage 'takr'; did you mean 'taker'",
        ),
        (
            "{model: base}",
            "{model: bsae}",
            6,
            "'bsae' is not an earlier stage, a root or an existing folder; did you mean 'base'",
        ),
        ("{model: base}", "{model: final}", 6, "stage 'final' does not come before this one; move it up"),
        ("{model: base}", "{model: chat}", 6, "stage 'chat' does not come before"),
        (
            ", inputs: {model: base}",
            "",
            6,
            "stages.1.inputs.model: stage 'taker' needs this input; with these settings it takes data, model",
        ),
        ("{model: base}", "{modle: base}", 6, "has no such input; did you mean 'model'"),
        ("config: chat.yaml", "config: caht.yaml", 6, "caht.yaml; did you mean 'chat.yaml'"),
        ("name: chat", "name: base", 6, "duplicate stage 'base'"),
        ("name: chat", "name: seed", 6, "'seed' is a key of the pipeline"),
        ("name: chat", "name: a/b", 6, "stages.1.name: 'a/b' is not a valid folder name"),
        ("name: chat", "nam: chat", 6, "stages.1.nam: unknown key; did you mean 'name'"),
        (
            "config: base.yaml",
            "config: base.yaml, processes: 0",
            5,
            "stages.0.processes: expected greater than",
        ),
        (
            "config: base.yaml",
            "config: base.yaml, processes: 2",
            5,
            "stages.0.processes: 2 processes need a DeepSpeed file",
        ),
        (
            "config: chat.yaml",
            "config: chat.yaml, processes: 2",
            6,
            "stages.1.processes: stage 'taker' runs in one process only, found 2",
        ),
        ("seed: 7", "seed: x", 2, "seed: expected a valid integer"),
    ],
)
def test_wrong_pipelines_name_their_line(project: Path, old: str, new: str, line: int, words: str) -> None:
    replace("configs/pipeline.yaml", old, new)
    errors = [
        error for error in problem().splitlines() if error.startswith(f"configs/pipeline.yaml:{line}: ")
    ]
    assert any(words in error for error in errors), problem()


def test_validating_knows_a_misspelt_stage_from_a_folder_that_is_yet_to_come(project: Path) -> None:
    replace("configs/pipeline.yaml", "{model: base}", "{model: bsae}")
    with pytest.raises(ConfigError, match=r"'bsae' is not an earlier stage.*; did you mean 'base'"):
        pipeline.read_pipeline("configs/pipeline.yaml", folders_needed=False)
    replace("configs/pipeline.yaml", "{model: bsae}", "{model: models/bsae}")
    assert pipeline.read_pipeline("configs/pipeline.yaml", folders_needed=False)
    replace("configs/pipeline.yaml", "{model: models/bsae}", "{model: weights}")
    assert pipeline.read_pipeline("configs/pipeline.yaml", folders_needed=False)


def test_wrong_settings_of_all_stages_are_reported_at_once(project: Path) -> None:
    replace("configs/base.yaml", "words", "wrods")
    replace("configs/final.yaml", "2", "many")
    assert "base.yaml:1: wrods: unknown key; did you mean 'words'" in problem()
    assert "final.yaml:1: rounds: expected a valid integer" in problem()


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("base.words=many", "override 'base.words=many'"),
        ("base.wrods=3", "did you mean 'words'"),
        ("bsae.words=3", "'bsae' is neither a stage nor a key of configs/pipeline.yaml; did you mean 'base'"),
        ("base=3", "'base' is a stage; expected base.KEY=VALUE"),
        ("chat.inputs.model=nowhere", "override 'chat.inputs.model=nowhere'"),
        ("roots.data=nowhere", "roots.data: no such folder: "),
        ("roots.dta=nowhere", "declares no root 'dta'; did you mean 'data'?; its roots: data"),
    ],
)
def test_wrong_overrides_are_named(project: Path, override: str, words: str) -> None:
    if "roots" in override:
        replace("configs/pipeline.yaml", "{model: base}", "{model: base, data: data}")
    assert override in problem(override)
    assert words in problem(override)


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ("{learning_rat: 1e-3}", "did you mean 'learning_rate'"),
        ("{max_steps: 1.5}", "expected int"),
        ("{output_dir: x}", "the stage sets this itself"),
    ],
)
def test_trainer_sections_are_checked_before_any_work(project: Path, section: str, words: str) -> None:
    replace("configs/base.yaml", "words: 3", f"trainer: {section}")
    chosen = schedule.plan(pipeline.read_pipeline("configs/pipeline.yaml"))
    with pytest.raises(ConfigError, match=r"base\.yaml:1: trainer\.") as caught:
        pipeline.check_trainers(chosen)
    assert words in str(caught.value)


def test_the_yaml_of_a_stage_is_not_a_pipeline(project: Path) -> None:
    with pytest.raises(ConfigError, match=r"base\.yaml: not a pipeline; run the YAML of one stage with"):
        pipeline.read_pipeline("configs/base.yaml")
