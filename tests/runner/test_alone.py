"""A stage that is started alone, with an input that takes a list."""

from __future__ import annotations

from pathlib import Path

import pytest

from llamita.config import load_settings
from llamita.errors import ConfigError
from llamita.runner import identity, stages
from llamita.settings import listed

from ..helpers.text_pipeline import replace, run
from ..helpers.text_stages import FakeStages, TunerSettings

pytestmark = pytest.mark.usefixtures("blocks")


def test_a_list_for_a_stage_alone(tmp_path: Path) -> None:
    for name in ("model", "one", "two"):
        (tmp_path / name).mkdir()
    given = [
        "inputs.model=model",
        "inputs.earlier.v1=one",
        "inputs.earlier.v2/rejection=two",
        "output=out/mine",
    ]
    read = load_settings("configs/rejection.yaml", TunerSettings, given)
    stage_run = stages.standalone_run("tuner", read, Path("configs/rejection.yaml"))
    assert listed(stage_run.inputs, "earlier") == {"v1": tmp_path / "one", "v2/rejection": tmp_path / "two"}
    assert stage_run.name == "mine"
    with Path("configs/rejection.yaml").open("a") as file:
        file.write("inputs: {earlier: {v1: ../two, 2: ../model}}\n")  # relative to the YAML
    read = load_settings("configs/rejection.yaml", TunerSettings, ["inputs.earlier.v3=one"])
    assert read.folders() == {
        "earlier.v1": str(tmp_path / "two"),
        "earlier.2": str(tmp_path / "model"),
        "earlier.v3": str(tmp_path / "one"),
    }


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("inputs.earlier=model", "inputs.earlier: this input takes a list: inputs.earlier.NAME=FOLDER"),
        ("inputs.judge.v1=model", "inputs.judge: this input takes one folder: inputs.judge=FOLDER"),
        ("inputs.earlir.v1=model", "inputs.earlir: stage 'tuner' has no such input"),
        ("inputs.earlier.v1=nowhere", "inputs.earlier.v1: no such folder: "),
    ],
)
def test_a_wrong_list_for_a_stage_alone(given: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    read = load_settings("configs/rejection.yaml", TunerSettings, ["inputs.model=model", given, "output=o"])
    with pytest.raises(ConfigError) as caught:
        stages.standalone_run("tuner", read, Path("configs/rejection.yaml"))
    assert words in str(caught.value)


def test_several_processes_need_a_deepspeed_file(tmp_path: Path) -> None:
    given = [f"inputs.model={tmp_path}", "output=out/mine"]
    read = load_settings("configs/rejection.yaml", TunerSettings, given)
    with pytest.raises(ConfigError, match=r"rejection\.yaml: --processes: 2 processes need a DeepSpeed file"):
        stages.standalone_run("tuner", read, Path("configs/rejection.yaml"), processes=2)


def test_a_stage_of_a_pipeline_alone_is_the_same_stage_with_what_the_pipeline_adds(fake: FakeStages) -> None:
    """As docs/pipeline.md says: seed, `with:`, round, and members of a list by the names of their stages."""
    replace("configs/pipeline.yaml", "name: tiny\n", "name: tiny\nseed: 3\n")
    replace(
        "configs/pipeline.yaml",
        "config: rejection.yaml\n",
        "config: rejection.yaml\n        with: {strength: 5}\n",
    )
    run(last="v2/rejection")
    folders = [
        "inputs.model=runs/tiny/v1/rejection",
        "inputs.judge=runs/tiny/v2/judge",
        "output=runs/tiny/v2/rejection",
    ]

    def status(*given: str) -> str:
        read = load_settings("configs/rejection.yaml", TunerSettings, [*folders, *given])
        return identity.status(stages.standalone_run("tuner", read, Path("configs/rejection.yaml"))).reason

    added = ("seed=3", "round=v2", "strength=5")
    assert status(*added, "inputs.earlier.v1/rejection=runs/tiny/v1/rejection") == "finished"
    assert "input earlier.v1 added" in status(*added, "inputs.earlier.v1=runs/tiny/v1/rejection")
    without = status("inputs.earlier.v1/rejection=runs/tiny/v1/rejection")
    assert without == 'changed: round: "v2" -> "alone"; seed: 3 -> 0; strength: 5 -> 2'
