"""What counts as a run with a report, and the errors for what does not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llamita.errors import ConfigError, DataError
from llamita.report.side_by_side.reading import read_runs

from ...helpers.run_reports import Change, RunReports


def test_a_run_is_its_folder_its_report_or_the_file(write_run: RunReports) -> None:
    first, second, third = (write_run(name) for name in ("a", "b", "c"))
    runs = read_runs([first, second / "report", third / "report" / "report.json"])
    assert [run.name for run in runs] == ["a", "b", "c"]
    assert all(run.path.name == "report.json" and not run.missing for run in runs)


def test_runs_of_the_same_name_are_named_by_what_differs_in_their_paths(write_run: RunReports) -> None:
    def rename(report: dict[str, Any]) -> None:
        report["run"]["name"] = "smoke"

    folders = [write_run("a", rename), write_run("b", rename), write_run("c")]
    assert [run.name for run in read_runs(folders)] == ["a", "b", "c"]


def test_one_run_twice(write_run: RunReports) -> None:
    folder = write_run("a")
    with pytest.raises(ConfigError, match=r"report\.json is given twice; expected different runs"):
        read_runs([folder, folder / "report"])


def test_keys_that_an_older_version_lacks_are_named(write_run: RunReports) -> None:
    def older(report: dict[str, Any]) -> None:
        del report["red_team"], report["prompts"]

    run, other = read_runs([write_run("old", older), write_run("new")])
    assert (run.missing, other.missing) == (("prompts", "red_team"), ())
    assert run.report["red_team"] == {}


def _set(key: str, value: object) -> Change:
    return lambda report: report.update({key: value})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            _set("verzions", {}),
            r"unknown key 'verzions'; did you mean 'versions'\?; expected a report of llamita",
        ),
        (_set("versions", []), "versions: expected an object"),
        (_set("samples", {}), "samples: expected a list"),
        (_set("run", []), "not a report of a run"),
        (_set("run", {"stages": []}), "run.name: expected the name"),
        (_set("run", {"name": "a", "stages": {}}), "run.stages: expected a list"),
        (_set("settings", {"sft": 3}), "settings.sft: expected an object"),
    ],
)
def test_other_schemas(write_run: RunReports, change: Change, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_runs([write_run("a", change), write_run("b")])


def test_not_a_run(tmp_path: Path, write_run: RunReports) -> None:
    good = write_run("a")
    with pytest.raises(DataError, match="missing: does not exist; expected the folder of a run"):
        read_runs([good, tmp_path / "missing"])
    (tmp_path / "begun").mkdir()
    with pytest.raises(
        DataError, match=r"begun: no report/report\.json in it; .* `llamita report .*begun` writes it"
    ):
        read_runs([good, tmp_path / "begun"])
    for text, message in (
        ("{", "invalid JSON"),
        (json.dumps([1]), "not a report"),
        (json.dumps({}), "not a report"),
    ):
        (tmp_path / "report.json").write_text(text)
        with pytest.raises(DataError, match=message):
            read_runs([good, tmp_path])
