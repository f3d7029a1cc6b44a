"""Figures by group of prompts: points are the report's figures, nulls are omitted, rings are correct."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from matplotlib.axes import Axes

from llamita.report.breakdown_figures import (
    false_refusals_by_group,
    helpfulness_by_group,
    violations_by_group,
)

from ..helpers.safety_run import GROUPS, SECOND

Draw = Callable[[Any, dict[str, Any]], Any]


def row_of(axes: Axes, title: str) -> int:
    return [label.get_text() for label in axes.get_yticklabels()].index(title)


def points(axes: Axes, row: int) -> list[float]:
    """Returns the values of the points in a row of groups, first version first; rings are no points."""
    found = [
        (line.get_ydata()[0], line.get_xdata()[0])
        for line in axes.lines
        if line.get_markersize() < 8 and abs(line.get_ydata()[0] - row) < 0.5
    ]
    return [float(x) for _, x in sorted(found)]


def rings(axes: Axes) -> list[tuple[float, int]]:
    return [
        (float(line.get_xdata()[0]), round(line.get_ydata()[0]))
        for line in axes.lines
        if line.get_markersize() == 8
    ]


def test_points_are_the_figures_of_each_version_group_and_decoding(
    safety_report: dict[str, Any], drawn: Draw
) -> None:
    figure = drawn(violations_by_group, safety_report)
    first, second = figure.axes
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["temperature 1", SECOND]
    titles = [label.get_text() for label in first.get_yticklabels()]
    assert titles[:4] == ["all prompts", "context", "plain", "system message"]
    assert len(titles) == 1 + sum(1 + len(groups) for groups in GROUPS.values())
    for axes, found in ((first, safety_report), (second, safety_report["decodings"][SECOND])):
        overall = [version["violation_rate"] for version in found["versions"].values()]
        assert points(axes, row_of(first, "all prompts")) == pytest.approx(overall)
        for dimension, group, title in (
            ("context", "multi_turn", "several turns"),
            ("turn", "6", "6"),
            ("attack", "none", "no attack style"),
            ("language", "french", "french"),
        ):
            expected = [
                version[dimension][group]["violation_rate"] for version in found["breakdown"].values()
            ]
            assert points(axes, row_of(first, title)) == pytest.approx(expected)
    assert first.get_xlim() == second.get_xlim()


def test_nulls_and_missing_groups_are_omitted(safety_report: dict[str, Any], drawn: Draw) -> None:
    breakdown = safety_report["breakdown"]
    breakdown["sft"]["context"]["plain"]["violation_rate"] = None
    for version in (*breakdown.values(), *safety_report["decodings"][SECOND]["breakdown"].values()):
        del version["language"]
    axes = drawn(violations_by_group, safety_report).axes[0]
    titles = [label.get_text() for label in axes.get_yticklabels()]
    assert "language" not in titles
    assert "french" not in titles
    assert len(points(axes, row_of(axes, "plain"))) == len(breakdown) - 1
    helpfulness = drawn(helpfulness_by_group, safety_report).axes[0]
    assert "risk category" not in [label.get_text() for label in helpfulness.get_yticklabels()]


def test_a_ring_where_a_version_is_worse_than_the_one_before(
    safety_report: dict[str, Any], drawn: Draw
) -> None:
    differences = safety_report["breakdown_differences"]
    for others in differences.values():
        for other in others:
            others[other] = {}
    assert rings(drawn(violations_by_group, safety_report).axes[0]) == []
    worse = {"violation_rate": 0.05, "violation_rate_se": 0.02}
    differences["v2/ppo"]["v2/rejection"] = {"context": {"instruction": worse}}
    differences["v2/ppo"]["sft"] = {"context": {"plain": worse}}  # not the version before
    figure = drawn(violations_by_group, safety_report)
    rate = safety_report["breakdown"]["v2/ppo"]["context"]["instruction"]["violation_rate"]
    assert rings(figure.axes[0]) == [(pytest.approx(rate), row_of(figure.axes[0], "system message"))]
    labels = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    assert labels == ["sft", "v1 rejection", "v2 rejection", "v2 ppo", "worse than the version before"]


def test_ordinary_and_borderline_prompts_have_a_panel_per_decoding(
    safety_report: dict[str, Any], drawn: Draw
) -> None:
    figure = drawn(false_refusals_by_group, safety_report)
    titles = [axes.get_title(loc="left").splitlines()[0] for axes in figure.axes]
    assert titles == ["false refusal rate", "borderline refusal"] * 2
    expected = [
        version["context"]["plain"]["false_refusal_borderline"]
        for version in safety_report["breakdown"].values()
    ]
    row = row_of(figure.axes[0], "plain")
    assert points(figure.axes[1], row) == pytest.approx(expected)


def test_without_a_breakdown_nothing_is_drawn(safety_report: dict[str, Any]) -> None:
    safety_report |= {"breakdown": {}, "decodings": {}}
    assert violations_by_group(safety_report) is None
    assert false_refusals_by_group(safety_report) is None
    assert helpfulness_by_group(safety_report) is None
