"""Contamination in the report: figures and tables are those of the stage."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from llamita.contamination.subsets import subset_figures
from llamita.report.collect import empty_report
from llamita.report.contamination_figures import overlap, scores
from llamita.report.contamination_tables import overlap_table, subsets_table
from llamita.report.page import render

Draw = Callable[[Any, dict[str, Any]], Any]


def benchmark(raised: float, scored: bool = True) -> dict[str, Any]:
    """The figures of 600 samples, whose dirty third has scores that are higher by `raised`."""
    shares = np.repeat([0.0, 0.5, 1.0], 200)
    known = (np.tile([0, 1], 300) + np.repeat([0, 0, raised], 200)).tolist() if scored else None
    spans = {str(span): subset_figures(shares * 10 / span, known) for span in (10, 20, 50)}
    affected = [int(span) for span, one in spans.items() if one["affected"]]
    return {"samples": 600, "spans": spans, "affected_up_to": max(affected, default=None)}


@pytest.fixture
def report() -> dict[str, Any]:
    benchmarks = {"raised": benchmark(0.5), "plain": benchmark(0), "unscored": benchmark(0, scored=False)}
    return empty_report() | {"contamination": {"contamination": {"benchmarks": benchmarks}}}


def test_overlap_by_minimum_span(report: dict[str, Any], drawn: Draw) -> None:
    axes = drawn(overlap, report).axes[0]
    assert [line.get_label() for line in axes.containers] == ["raised", "plain", "unscored"]
    assert axes.containers[0].lines[0].get_ydata() == pytest.approx([0.5, 0.25, 0.1])
    assert list(axes.containers[0].lines[0].get_xdata()) == [10, 20, 50]
    table = overlap_table(report)
    assert table is not None
    assert table["head"][3:] == ["spans ≥ 10", "spans ≥ 20", "spans ≥ 50"]
    assert table["rows"][0][:4] == ["raised", "600", "200", "50.0 ± 1.7"]


def test_scores_of_the_subsets(report: dict[str, Any], drawn: Draw) -> None:
    axes = drawn(scores, report).axes[0]
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == ["raised, spans ≥ 10", "plain, spans ≥ 10"]  # without scores there is nothing to draw
    clean, dirty = axes.containers[0], axes.containers[3]
    assert clean.lines[0].get_xdata() == pytest.approx([-0.5 / 3, 0])
    assert dirty.lines[0].get_xdata() == pytest.approx([1 / 3, 0])
    bars = dirty.lines[2][0].get_segments()[0][:, 0]
    subset = report["contamination"]["contamination"]["benchmarks"]["raised"]["spans"]["10"]["subsets"][
        "dirty"
    ]
    error = (subset["score"] - subset["expected"]) / subset["z"]
    assert bars == pytest.approx([1 / 3 - 2 * error, 1 / 3 + 2 * error])
    table = subsets_table(report)
    assert table is not None
    assert [row[0] for row in table["rows"]][::4] == [
        "raised, spans ≥ 10 (affected)",
        "plain, spans ≥ 10 (not affected)",
    ]
    assert table["rows"][3][1:4] == ["dirty", "100.0", "200"]
    assert table["rows"][3][6] == f"{subset['z']:+.2f}"


def test_the_section_exists_only_if_something_was_measured(report: dict[str, Any]) -> None:
    assert 'id="contamination"' in render(report)
    assert 'id="contamination"' not in render(empty_report())
    assert overlap_table(empty_report()) is None
    assert subsets_table(empty_report()) is None
    unscored = report["contamination"]["contamination"]["benchmarks"]["unscored"]
    only = empty_report() | {"contamination": {"a": {"benchmarks": {"unscored": unscored}}}}
    assert scores(only) is None
    assert subsets_table(only) is None


def test_several_stages_are_told_apart(report: dict[str, Any]) -> None:
    stages = report["contamination"]
    stages["second"] = stages["contamination"]
    table = overlap_table(report)
    assert table is not None
    assert [row[0] for row in table["rows"]][::3] == ["contamination: raised", "second: raised"]
