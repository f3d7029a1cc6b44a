"""Red teaming in the report: cells of the heat maps, intervals and mitigation are those of the stage."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from llamita.report.collect import empty_report
from llamita.report.red_team_figures import by_turns, heat_maps
from llamita.report.red_team_tables import red_team_table
from llamita.report.style import COLOUR

Draw = Callable[[Any, dict[str, Any]], Any]


def test_a_map_per_version_with_a_cell_per_category_and_attack(
    safety_report: dict[str, Any], drawn: Draw
) -> None:
    versions = safety_report["red_team"]["red_team"]["versions"]
    versions["v2/ppo"]["category_by_attack"]["illicit"]["logic"]["violation_rate"] = None
    figure = drawn(heat_maps, safety_report)
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["sft", "v1 rejection", "v2 ppo"]
    assert [len(axes.patches) for axes in figure.axes] == [27, 27, 26]  # 4 x 7 without hateful logic
    first = figure.axes[0]
    attacks = [label.get_text() for label in figure.axes[-1].get_xticklabels()]
    assert attacks == [
        *("psychological", "logic", "perspective", "non-English", "multi-turn"),
        *("no\nattack style", "all"),
    ]
    assert [label.get_text() for label in first.get_yticklabels()] == [
        *("illicit", "hateful", "unqualified", "all")
    ]
    cells = {
        (int(patch.get_x()), int(patch.get_y())): patch.get_alpha() / 0.85
        for patch in first.patches
        if patch.get_facecolor()[:3]
        == pytest.approx(tuple(int(COLOUR["red"][i : i + 2], 16) / 255 for i in (1, 3, 5)))
    }
    cell = versions["sft"]["category_by_attack"]["unqualified"]["perspective"]
    assert cells[2, 2] == pytest.approx(cell["violation_rate"])
    assert cells[6, 3] == pytest.approx(0.5)
    texts = [text.get_text() for text in first.texts]
    assert texts.count("50%") == 2  # overall, and logic over all categories
    assert "n=300" in texts


def test_intervals_by_number_of_user_messages(safety_report: dict[str, Any], drawn: Draw) -> None:
    figure = drawn(by_turns, safety_report)
    overall, single, multi = figure.axes[0].containers
    versions = safety_report["red_team"]["red_team"]["versions"]
    assert multi.get_label() == "several user messages"
    assert list(overall.lines[0].get_ydata()) == [
        one["overall"]["violation_rate"] for one in versions.values()
    ]
    assert list(single.lines[0].get_ydata()) == [
        one["turns"]["single"]["violation_rate"] for one in versions.values()
    ]
    ends = multi.lines[2][0].get_segments()[0][:, 1]
    group = versions["sft"]["turns"]["multi"]
    assert list(ends) == pytest.approx([group["low"], group["high"]])


def test_mitigation_is_compared_with_the_version_before(safety_report: dict[str, Any], drawn: Draw) -> None:
    mitigated = safety_report["red_team"]["red_team"]["mitigated"]
    axes = drawn(by_turns, safety_report).axes[1]
    assert [patch.get_height() for patch in axes.patches] == pytest.approx([110 / 150, 55 / 60])
    assert [text.get_text() for text in axes.texts] == ["110 of 150", "55 of 60"]
    mitigated["v1/rejection"]["sft"] |= {"violated": 0, "mitigated": 0, "mitigated_share": None, "low": None}
    axes = drawn(by_turns, safety_report).axes[1]
    assert [patch.get_height() for patch in axes.patches] == pytest.approx([55 / 60])
    assert "paper: 90% mitigated" in [text.get_text() for text in axes.get_legend().get_texts()]


def test_the_table_has_intervals(safety_report: dict[str, Any]) -> None:
    table = red_team_table(safety_report)
    assert table is not None
    assert table["head"][1:] == ["sft", "v1 rejection", "v2 ppo"]
    assert table["rows"] == [
        ["all prompts", "50.0 (46.0–56.0)", "20.0 (16.0–26.0)", "4.0 (0.0–10.0)"],
        ["one user message", "45.0 (41.0–51.0)", "18.0 (14.0–24.0)", "3.6 (0.0–9.6)"],
        ["several user messages", "60.0 (56.0–66.0)", "24.0 (20.0–30.0)", "4.8 (0.8–10.8)"],
        ["mitigated, % of earlier", "–", "73.3 (65.3–78.3)", "91.7 (83.7–96.7)"],
    ]


def test_two_stages_are_told_apart(safety_report: dict[str, Any], drawn: Draw) -> None:
    safety_report["red_team"]["by_people"] = safety_report["red_team"]["red_team"]
    titles = [axes.get_title(loc="left") for axes in drawn(heat_maps, safety_report).axes]
    assert titles[0] == "red team: sft"
    assert titles[3] == "by people: sft"
    table = red_team_table(safety_report)
    assert table is not None
    assert [row[0] for row in table["rows"]][::4] == ["red team: all prompts", "by people: all prompts"]


def test_nothing_is_drawn_without_judged_answers() -> None:
    unjudged = {"versions": {"sft": {"overall": {"violation_rate": None}}}, "mitigated": {}}
    for stages in ({}, {"red_team": unjudged}):
        report = empty_report() | {"red_team": stages}
        assert heat_maps(report) is None
        assert by_turns(report) is None
        assert red_team_table(report) is None
