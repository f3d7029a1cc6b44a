"""The tables in the terminal: aligned, complete in 80 columns, omitted if nothing was measured."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from llamita.report.artifacts import read_artifacts
from llamita.report.collect import collect, empty_report
from llamita.report.table import print_report
from llamita.report.words import figure

from ..helpers.finished_run import inputs_of


def printed(report: dict, width: int = 80) -> list[str]:
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    print_report(report, console)
    return console.file.getvalue().splitlines()


def test_fits_80_columns_uncut(example: Path) -> None:
    lines = printed(collect("smoke", read_artifacts(inputs_of(example))))
    assert max(map(len, lines)) <= 80
    assert not any("…" in line for line in lines)


def test_three_rounds_fit_in_several_tables(three_rounds: Path) -> None:
    lines = printed(collect("smoke", read_artifacts(inputs_of(three_rounds))))
    assert max(map(len, lines)) <= 80
    assert not any("…" in line for line in lines)
    heads = [" ".join(line.split()) for line in lines if line.startswith("version ")]
    assert heads == [
        "version sft v1 rejection v1 ppo v2 rejection",
        "version v2 ppo v3 rejection v3 ppo",
    ]
    rows = [" ".join(line.split()) for line in lines]
    assert rows.count("gold helpfulness 0.370 ± 0.010 0.450 ± 0.010 0.500 ± 0.010 0.550 ± 0.010") == 1
    assert "gold helpfulness 0.600 ± 0.010 0.650 ± 0.010 0.700 ± 0.010" in rows
    assert "sampled answers 5,600 5,600 5,600" in rows
    assert "v2 reward 27.0 s" not in rows
    assert "v2 reward 23.0 s" in rows


def test_columns_are_aligned(example: Path) -> None:
    lines = printed(collect("smoke", read_artifacts(inputs_of(example))))
    start = next(number for number, line in enumerate(lines) if line.startswith("instruction following"))
    table = lines[start : start + 4]
    assert len({len(line) for line in table}) == 1
    assert table[1].split()[-6:] == ["100.0", "100.0", "99.0", "99.0", "98.5", "97.0"]


def test_differences_and_notes(example: Path) -> None:
    report = collect("smoke", read_artifacts(inputs_of(example)))
    report["gatt_dialogues"]["without"] |= {"outgrown": 9, "reached": {"10": 200, "20": 191}}
    lines = printed(report)
    start = next(number for number, line in enumerate(lines) if line.startswith("paired difference"))
    assert all(title in lines[start] for title in ("gold helpfulness", "violation %", "false refusal %"))
    assert lines[start + 5].split() == [
        "v2",
        "ppo",
        "−",
        "sft",
        *"+0.240 ± 0.005 -50.8 ± 0.5 +0.6 ± 0.5".split(),
    ]
    text = " ".join(lines)
    assert "note: without GAtt: 9 of 200 dialogues exceeded the context length before" in text
    assert "(turn 20: 191)" in text
    assert "test prompts: 1,000 ordinary" in lines


def test_markup_in_a_report_is_text(example: Path) -> None:
    report = collect("smoke", read_artifacts(inputs_of(example)))
    report["wall_seconds"]["[b]stage"] = 1.0
    report["versions"] = {f"[b]{name}": one for name, one in report["versions"].items()}
    report["training_rows"] = {"not_compared": {"sft": "[/inst] is missing"}}
    lines = printed(report, width=400)
    assert any(line.startswith("[b]stage ") for line in lines)
    assert any(line.startswith("version ") and " [b]sft " in line for line in lines)
    assert "note: Test prompts were not compared with the training rows of sft: [/inst] is missing." in lines


def test_headlines_of_safety(safety_report: dict) -> None:
    figures = safety_report["differences"]["v2/ppo"]["v2/rejection"]
    figures |= {"safety_score": -0.5}  # the terminal does not show it
    assert "! worse by more than two paired standard errors" not in printed(safety_report)
    figures |= {"violation_rate": 0.09, "violation_rate_se": 0.01}
    lines = printed(safety_report)
    assert max(map(len, lines)) <= 80
    rows = [" ".join(line.split()) for line in lines]
    assert "violation rate % sft v1 rejection v2 rejection v2 ppo" in rows
    assert "several turns 52.0 ± 2.0 11.0 ± 2.0 4.0 ± 2.0 1.2 ± 2.0" in rows
    assert "instruction following 91.2 ± 1.2 82.4 ± 1.2 73.5 ± 1.2 64.7 ± 1.2" in rows
    assert "several user messages 60.0 (56.0–66.0) 24.0 (20.0–30.0) 4.8 (0.8–10.8)" in rows
    assert "distilled answers kept by the gate, % 70.8 ± 3.0" in rows
    assert "v2 ppo − v2 rejection +0.120 ± 0.005 +9.0 ± 1.0 ! +0.2 ± 0.5" in rows
    assert "! worse by more than two paired standard errors" in rows
    assert not any("classifier" in row for row in rows if not row.startswith("refusal classifier"))


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
def test_format_of_figures(group: dict, percent: bool, text: str) -> None:
    assert figure(group, "x", percent) == text
