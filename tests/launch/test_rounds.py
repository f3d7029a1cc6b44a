"""Three rounds of real stages, a refreshed reward model in each, killed at random moments."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from llamita.artifact import MANIFEST

from ..helpers.kills import Run, run_undisturbed, run_with_kills, without_clocks
from ..helpers.rounds import NAMES, write_project

# the page shows clocks, and the report's manifest has its hash
OF_THE_PAGE = (Path("report/report.html"), Path("report/manifest.json"))


def run_of(pipeline: Path, folder: Path) -> Run:
    """The pipeline as a process that is started in `folder`."""
    # in v3 the reward model of the previous round selects the answers
    overrides = ["v3/rejection.inputs.helpfulness=v2/reward"]
    command = [sys.executable, "-m", "llamita.cli", "run", str(pipeline), *overrides]
    folder.mkdir()
    return Run(command, folder / "runs" / "rounds", folder / "log", "sft", folder=folder)


def content(path: Path, run: Path) -> Any:
    """Content of a file without clocks and the run's path; weights are compared by their bytes."""
    if path.suffix == ".json":
        return unclocked(json.loads(path.read_text().replace(str(run), "")))
    if path.suffix == ".jsonl":
        return [unclocked(json.loads(line)) for line in path.read_text().splitlines()]
    return path.read_bytes()


def unclocked(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: unclocked(item) for key, item in without_clocks(value).items() if key != "created"}
    return [unclocked(item) for item in value] if isinstance(value, list) else value


@pytest.mark.long
def test_three_rounds_killed_five_times_end_as_if_undisturbed(tmp_path: Path, tokenizer: Any) -> None:
    pipeline = write_project(tmp_path, tokenizer)
    undisturbed, killed = run_of(pipeline, tmp_path / "undisturbed"), run_of(pipeline, tmp_path / "killed")
    idle, busy = run_undisturbed(undisturbed)
    run_with_kills(killed, 5, idle=idle, busy=busy)
    expected, found = undisturbed.out, killed.out
    names = sorted(path.relative_to(expected) for path in expected.rglob("*"))
    assert {str(name.parent) for name in names if name.name == MANIFEST} == set(NAMES)
    # nothing unfinished is left and nothing is missing
    assert names == sorted(path.relative_to(found) for path in found.rglob("*"))
    files = [name for name in names if (expected / name).is_file() and name not in OF_THE_PAGE]
    differing = [
        str(name) for name in files if content(expected / name, expected) != content(found / name, found)
    ]
    assert differing == []
