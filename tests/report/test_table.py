"""The terminal's tables: aligned, whole in 80 columns, honest where nothing was measured."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from llamita.report.artifacts import read_artifacts
from llamita.report.collect import collect, empty_report
from llamita.report.table import print_report
from llamita.report.words import figure


def printed(report: dict, width: int = 80) -> list[str]:
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    print_report(report, console)
    return console.file.getvalue().splitlines()


def test_fits_80_columns_uncut(example: Path) -> None:
    lines = printed(collect("smoke", read_artifacts({path.name: path for path in example.iterdir()})))
    assert max(map(len, lines)) <= 80
    assert not any("…" in line for line in lines)


def test_columns_are_aligned(example: Path) -> None:
    lines = printed(collect("smoke", read_artifacts({path.name: path for path in example.iterdir()})))
    start = next(number for number, line in enumerate(lines) if line.startswith("instruction kept"))
    table = lines[start : start + 4]
    assert len({len(line) for line in table}) == 1
    assert table[1].split()[-6:] == ["100.0", "100.0", "99.0", "99.0", "98.5", "97.0"]


def test_differences_and_what_was_left_out(example: Path) -> None:
    report = collect("smoke", read_artifacts({path.name: path for path in example.iterdir()}))
    report["gatt_dialogues"]["without"] |= {"outgrown": 9, "reached": {"10": 200, "20": 191}}
    lines = printed(report)
    start = next(number for number, line in enumerate(lines) if line.startswith("paired difference"))
    assert all(
        heading in lines[start] for heading in ("gold helpfulness", "violations %", "false refusals %")
    )
    assert lines[start + 5].split() == ["v2", "−", "sft", *"+0.240 ± 0.005 -50.8 ± 0.5 +0.6 ± 0.5".split()]
    told = " ".join(lines)
    assert "note: without GAtt: 9 of 200 dialogues outgrew the context before the last turn;" in told
    assert "(turn 20: 191)" in told


def test_nothing_measured_prints_nothing() -> None:
    assert printed(empty_report()) == []


@pytest.mark.parametrize(
    ("group", "percent", "text"),
    [
        ({"x": 0.6123, "x_se": 0.0081}, False, "0.612 ± 0.008"),
        ({"x": 0.0421, "x_se": 0.009}, True, "4.2 ± 0.9"),
        ({"x": 14.23, "x_se": 0.21}, False, "14.2 ± 0.2"),
        ({"x": 0.5, "x_se": None}, True, "50.0"),
        ({"x": None, "x_se": None}, True, "–"),
        ({}, False, "–"),
    ],
)
def test_figures_in_words(group: dict, percent: bool, text: str) -> None:
    assert figure(group, "x", percent) == text
