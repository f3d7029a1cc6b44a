"""Comparisons, diversity and reward shift in the report: bars and lines are those of the evaluation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from llamita.comparison.verdicts import LOSS, TIE, WIN, compare
from llamita.report.collect import empty_report
from llamita.report.comparison_figures import comparison_figure, diversity, reward_shift, win_rates
from llamita.report.comparison_tables import win_rate_lines
from llamita.report.page_tables import tables

Draw = Callable[[Any, dict[str, Any]], Any]
JUDGE = {
    "pairs": 8,
    "identical": 2,
    "unreadable": 1,
    "rejected": 0,
    "inconsistent": 0.25,
    "inconsistent_se": 0.1,
    "shown_first": 0.5,
    "shown_first_se": 0.1,
    "shown_second": 0.25,
    "shown_second_se": 0.1,
}


def comparison() -> dict[str, Any]:
    verdicts = dict(enumerate([WIN] * 5 + [TIE] * 3 + [LOSS] * 2))
    raters = {"gold": verdicts, "endpoint": {0: WIN, 1: None, 2: TIE}, "safety": {10: WIN, 11: LOSS}}
    kinds = compare(raters, ["ordinary"] * 10 + ["harmful"] * 2, range(12))
    return {"kinds": kinds, "endpoint": JUDGE}


@pytest.fixture
def compared() -> dict[str, Any]:
    report = empty_report()
    report["comparisons"] = {
        "v1/rejection": {"sft": comparison()},
        "v2/ppo": {"v1/rejection": comparison(), "sft": comparison()},
    }
    return report


def test_bars_are_the_shares_and_the_papers_are_beside(compared: dict[str, Any], drawn: Draw) -> None:
    figure = drawn(win_rates, compared)
    ordinary, harmful = figure.axes
    assert [axes.get_title(loc="left") for axes in figure.axes] == [
        "ordinary prompts, against sft",
        "harmful prompts, against sft",
    ]
    assert [label.get_text() for label in ordinary.get_yticklabels()] == [
        *("v1 rejection: ground truth", "v1 rejection: judge model"),
        *("v2 ppo: ground truth", "v2 ppo: judge model", "paper: 70B, ChatGPT"),
    ]
    widths = [[bar.get_width() for bar in container] for container in ordinary.containers]
    assert widths[0] == pytest.approx([0.5, 0.5, 0.5, 0.5, 0.36])
    assert widths[1] == pytest.approx([0.3, 0.5, 0.3, 0.5, 0.315])
    assert widths[2] == pytest.approx([0.2, 0.0, 0.2, 0.0, 0.325])
    gold = compared["comparisons"]["v1/rejection"]["sft"]["kinds"]["ordinary"]["raters"]["gold"]
    wins, losses = ordinary.lines[:2]
    assert list(wins.get_xdata()) == [gold["win_low"], gold["win_high"]]
    assert list(losses.get_xdata()) == pytest.approx([1 - gold["loss_high"], 1 - gold["loss_low"]])
    assert len(harmful.containers[0]) == 2


def test_tables_show_every_comparison_and_what_is_missing(compared: dict[str, Any]) -> None:
    shares, agreement, judge = tables("win_rates", compared)
    assert len(shares["rows"]) == 3 * 3 + 1
    assert shares["rows"][1] == [
        "v1 rejection against sft, ordinary: judge model",
        *("50.0 (9–91)", "50.0 (9–91)", "0.0 (0–66)", "+50.0 ± 50.0", "2", "1"),
    ]
    assert shares["rows"][-1] == ["paper: 70B, ChatGPT", "36.0", "31.5", "32.5", "+3.5", "–", "–"]
    assert agreement["rows"][0][0] == "v1 rejection against sft, ordinary: ground truth and judge model"
    assert ["pairs with a reply without a verdict", "1", "1", "1"] in judge["rows"]
    assert ["different verdicts in the two orders, %", *["25.0 ± 10.0"] * 3] in judge["rows"]
    lines = list(win_rate_lines(compared))
    assert lines[0] == (
        "v1 rejection against sft, ordinary prompts (win/tie/loss %): ground truth 50/30/20, "
        "judge model 50/50/0"
    )


def test_one_comparison_is_drawn_like_those_of_versions() -> None:
    figure = comparison_figure(comparison())
    assert figure is not None
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels == ["ground truth", "judge model", "paper: 70B, ChatGPT"]


def test_the_shift_of_scores_has_a_line_for_each_version(drawn: Draw) -> None:
    report = empty_report()
    report["distributions"] = {
        name: {"helpfulness_score": {"histogram": shares}, "safety_score": None}
        for name, shares in (("sft", [0.75, 0.25]), ("v2/ppo", [0.0, 1.0]))
    }
    figure = drawn(reward_shift, report)
    [axes] = figure.axes
    assert [list(patch.get_data().values) for patch in axes.patches] == [[0.75, 0.25], [0.0, 1.0]]
    assert list(axes.patches[0].get_data().edges) == [0, 0.5, 1]
    del report["distributions"]["v2/ppo"]
    assert drawn(reward_shift, report) is None, "one version has no shift"


def test_diversity_has_a_line_for_each_version_in_both_panels(drawn: Draw) -> None:
    report = empty_report()
    by_temperature = {"0.1": 0.9, "0.1_se": 0.01, "1.5": 0.2, "1.5_se": None}
    report["diversity"] = {
        name: {"factual": by_temperature, "creative": by_temperature | {"1.5": 0.1}} for name in ("sft", "v1")
    }
    figure = drawn(diversity, report)
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["factual prompts", "creative prompts"]
    first, _ = figure.axes[1].containers
    assert list(first.lines[0].get_xdata()) == [0.1, 1.5]
    assert list(first.lines[0].get_ydata()) == [0.9, 0.1]


def test_nothing_is_drawn_or_listed_without_measurements(drawn: Draw) -> None:
    report = empty_report()
    assert [drawn(function, report) for function in (win_rates, reward_shift, diversity)] == [None] * 3
    assert tables("win_rates", report) == []
    assert list(win_rate_lines(report)) == []
