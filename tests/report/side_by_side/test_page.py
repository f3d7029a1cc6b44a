"""`llamita report A B`: tables, the page, and what is written."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from llamita.cli import app
from llamita.console import console
from llamita.errors import ConfigError
from llamita.report.side_by_side import figures
from llamita.report.side_by_side.measures import rows
from llamita.report.side_by_side.page import print_runs, write_page
from llamita.report.side_by_side.reading import Run, read_runs
from llamita.report.side_by_side.tables import figures_table, notes, settings_table

from ...helpers.html_page import check
from ...helpers.run_reports import RunReports


def changed(report: dict[str, Any]) -> None:
    """Another learning rate, no PPO, more violations, another torch."""
    report["settings"]["sft"]["trainer"]["learning_rate"] = 3e-3
    report["settings"]["sft"]["new"] = {"key": [1, 2]}
    del report["settings"]["v2/ppo"], report["versions"]["v2/ppo"]
    report["versions"]["sft"] |= {"violation_rate": 0.99, "violation_rate_se": 0.001}
    report["packages"]["torch"] = "2.14.0"
    report["run"]["stages"][0]["git_commit"] = "fedcba9876543210"


@pytest.fixture
def runs(write_run: RunReports) -> list[Run]:
    return read_runs([write_run("first"), write_run("other", changed)])


def test_tables(runs: list[Run]) -> None:
    found = rows(runs)
    table = figures_table(runs, found)
    assert table["head"] == ["", "first", "other", "other − first"]
    cells = {row[0]: row[1:] for row in table["rows"]}
    assert cells["violation rate %, sft"][1] == "99.0 ± 0.1"
    assert cells["violation rate %, sft"][2].endswith(" worse")
    assert cells["gold helpfulness, v2 ppo"][1:] == ["–", "–"]
    assert cells["pretraining, bits per byte"] == ["0.412", "0.412", "+0.000"]
    assert cells["wall time"][2] == "+0.0 s"
    assert any("worse than first by more than two" in note for note in notes(runs, found))
    assert not any("worse than" in note for note in notes(runs[:1] * 2, rows(runs[:1] * 2)))


def test_settings_that_differ(runs: list[Run]) -> None:
    table = settings_table(runs)
    assert table["rows"] == [
        ["sft: trainer.learning_rate", "0.001", "0.003"],
        ["sft: new.key", "–", "[1, 2]"],
        ["stage v2 ppo", "finished", "–"],
        ["package torch", '"2.13.0"', '"2.14.0"'],
        ["git commit", '"0123456789ab"', '"fedcba987654, 0123456789ab"'],
    ]
    assert settings_table(runs[:1] * 2)["rows"] == []


def test_a_stage_of_two_runs_is_compared_beside_a_third_without_it(write_run: RunReports) -> None:
    def without_sft(report: dict[str, Any]) -> None:
        del report["settings"]["sft"]

    found = read_runs([write_run("a"), write_run("b", without_sft), write_run("c")])
    assert settings_table(found)["rows"] == [["stage sft", "finished", "–", "finished"]]


def test_the_page_is_self_contained(runs: list[Run], tmp_path: Path) -> None:
    path = write_page(runs, tmp_path / "new" / "folder")
    text = path.read_text()
    checked = check(text)
    assert not checked.loads
    assert len(checked.ids) == len(set(checked.ids))
    assert text.count("<figure>") == 4
    assert '<td class="bad">' in text
    assert "sft: trainer.learning_rate" in text


def test_a_page_that_cannot_be_finished_changes_nothing(
    runs: list[Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_page(runs, tmp_path)
    before = path.read_text()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_page(runs[::-1], tmp_path)
    assert path.read_text() == before
    assert [file.name for file in tmp_path.iterdir() if file.is_file()] == ["runs.html"]


def test_points_are_the_figures_and_missing_ones_are_gaps(
    runs: list[Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(figures, "to_svg", lambda figure, *_: figure)
    drawn: Any = figures.versions(runs)
    axes = drawn.axes[0]
    heights = [list(line.get_ydata()) for line in axes.get_lines()]
    names = list(runs[0].report["versions"])
    for run, found in zip(runs, heights, strict=True):
        for name, height in zip(names, found, strict=True):
            expected = run.report["versions"].get(name, {}).get("gold_helpfulness")
            assert height == expected or (expected is None and height != height)


def test_figures_without_anything_measured() -> None:
    from llamita.report.collect import empty_report

    nothing = [Run(name, Path(name), empty_report(), ()) for name in ("a", "b")]
    assert [draw(nothing) for draw, _ in figures.FIGURES] == [None] * 4


def test_markup_in_a_report_is_text(write_run: RunReports, capsys: pytest.CaptureFixture[str]) -> None:
    def marked(report: dict[str, Any]) -> None:
        report["settings"]["sft"]["new"] = {"[/inst]": "[bold] [/inst]"}

    runs = read_runs([write_run("first"), write_run("other[/inst]", marked)])
    print_runs(runs, Console(width=200, force_terminal=False))
    shown = capsys.readouterr().out
    assert "sft: new.[/inst]" in shown
    assert '"[bold] [/inst]"' in shown


def test_the_command(write_run: RunReports, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "_width", 120)
    first, other = write_run("first"), write_run("other", changed)
    output = tmp_path / "page"
    result = CliRunner().invoke(app, ["report", str(first), str(other), "--output", str(output)])
    assert result.exit_code == 0, result.output
    assert (output / "runs.html").is_file()
    for text in ("other − first", "violation rate %, sft", "sft: trainer.learning_rate", "page: "):
        assert text in result.output
    assert sorted(path.name for path in first.iterdir()) == ["report"]
    result = CliRunner().invoke(app, ["report", str(first), "--output", str(output)])
    assert isinstance(result.exception, ConfigError) or "--output is for several runs" in result.output
