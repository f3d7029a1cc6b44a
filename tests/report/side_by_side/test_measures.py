"""Figures of several runs and their differences."""

from __future__ import annotations

import math
from typing import Any

import pytest

from llamita.errors import DataError
from llamita.report.side_by_side.measures import RUN_MEASURES, Row, RunMeasure, rows
from llamita.report.side_by_side.reading import Run, read_runs

from ...helpers.run_reports import RunReports

RATE = RunMeasure("violation rate %", ("versions", "*", "violation_rate"), -1, "percent")


def titled(found: list[Row]) -> dict[str, Row]:
    return {row.title: row for row in found}


def runs_with(write_run: RunReports, **versions: dict[str, Any]) -> list[Run]:
    """Runs whose versions have these figures."""
    return read_runs(
        [
            write_run(name, lambda report, figures=figures: report.update(versions=figures))
            for name, figures in versions.items()
        ]
    )


def test_headline_figures_are_those_of_the_reports(
    write_run: RunReports, base_report: dict[str, Any]
) -> None:
    found = titled(rows(read_runs([write_run("a"), write_run("b")])))
    assert found["pretraining, bits per byte"].values[0] == (0.412, None)
    reward = base_report["reward"]["helpfulness"]
    assert found["reward accuracy %, helpfulness"].values[1] == (reward["accuracy"], reward["accuracy_se"])
    for version, figures in base_report["versions"].items():
        expected = (figures["gold_helpfulness"], figures["gold_helpfulness_se"])
        assert found[f"gold helpfulness, {version.replace('/', ' ')}"].values == (expected, expected)
    assert found["wall time"].values[0][0] == pytest.approx(sum(base_report["wall_seconds"].values()))
    assert {row.measure for row in found.values()} >= {
        measure for measure in RUN_MEASURES if measure.path[0] in ("versions", "reward", "wall_seconds")
    }


def test_differences_and_their_errors(write_run: RunReports) -> None:
    runs = runs_with(
        write_run,
        a={"sft": {"violation_rate": 0.2, "violation_rate_se": 0.03}},
        b={"sft": {"violation_rate": 0.31, "violation_rate_se": 0.04}},
        c={"sft": {"violation_rate": 0.29, "violation_rate_se": 0.04}},
        d={"sft": {"violation_rate": 0.9, "violation_rate_se": None}},
        e={"sft": {"violation_rate": 0.01, "violation_rate_se": 0.04}},
    )
    [row] = rows(runs, [RATE])
    assert row.difference(1) == (pytest.approx(0.11), pytest.approx(math.hypot(0.03, 0.04)))
    assert row.difference(3) == (pytest.approx(0.7), None)
    assert [row.worse(place) for place in range(5)] == [False, True, False, False, False]


def test_better_can_be_higher_lower_or_neither() -> None:
    values = ((0.5, 0.01), (0.4, 0.01))
    verdicts = [Row(RunMeasure("x", ("x",), better), "x", values).worse(1) for better in (1, -1, 0)]
    assert verdicts == [True, False, False]


def test_missing_figures_are_not_dropped(write_run: RunReports) -> None:
    runs = runs_with(
        write_run,
        a={"sft": {"violation_rate": 0.2}, "v1/ppo": {"violation_rate": None}},
        b={"v1/ppo": {"violation_rate": None}, "v2/ppo": {"violation_rate": 0.1}},
    )
    found = titled(rows(runs, [RATE]))
    assert list(found) == ["violation rate %, sft", "violation rate %, v2 ppo"]
    assert found["violation rate %, sft"].values == ((0.2, None), (None, None))
    assert found["violation rate %, sft"].difference(1) == (None, None)
    assert found["violation rate %, v2 ppo"].values == ((None, None), (0.1, None))


def test_several_names_in_one_measure(write_run: RunReports) -> None:
    def add(report: dict[str, Any]) -> None:
        report["metrics"] = {"x/y": {"gsm8k": {"score": 0.5, "score_se": 0.1}, "note": "text"}}

    [row] = rows(
        read_runs([write_run("a", add), write_run("b")]),
        [RunMeasure("score", ("metrics", "*", "*", "score"))],
    )
    assert (row.title, row.values) == ("score, x y, gsm8k", ((0.5, 0.1), (None, None)))


def test_a_figure_that_is_no_number(write_run: RunReports) -> None:
    runs = runs_with(write_run, a={"sft": {"violation_rate": "low"}}, b={})
    with pytest.raises(
        DataError, match=r"report\.json: versions\.sft\.violation_rate: expected a number or null, not 'low'"
    ):
        rows(runs, [RATE])


def test_benchmarks_and_contamination_are_compared(write_run: RunReports) -> None:
    def measured(accuracy: float, contaminated: float) -> Any:
        tasks = {"mmlu": {"accuracy": accuracy, "accuracy_se": 0.01}}
        found = {"benchmarks": {"mmlu": {"spans": {"10": {"contaminated": contaminated}}}}}
        return lambda report: report.update(
            benchmark={"benchmark": {"versions": {"base": {"tasks": tasks}}}},
            contamination={"searched": found},
        )

    runs = read_runs([write_run("a", measured(0.4, 0.0)), write_run("b", measured(0.3, 0.5))])
    found = titled(rows(runs))
    mmlu = found["MMLU, accuracy %, benchmark, base"]
    assert mmlu.values == ((0.4, 0.01), (0.3, 0.01))
    assert mmlu.worse(1)
    assert found["contaminated tokens %, searched, mmlu"].values == ((0.0, None), (0.5, None))
