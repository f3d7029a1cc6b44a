"""The figures by which runs are compared: add a line to `RUN_MEASURES` to compare another one."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ...errors import DataError
from ..benchmark_tables import TITLES
from ..regressions import ERRORS, ROUNDING
from ..words import words
from .reading import Run

Value = tuple[float | None, float | None]
"""A figure and its standard error; None where unknown."""


@dataclass(frozen=True)
class RunMeasure:
    """A figure of `report.json`.

    Attributes:
        title: its title, with a `%` where it is shown in percent.
        path: its key; a `*` is every key at that place that any of the runs has, such as every version.
        better: direction in which it improves, or 0 if there is none.
        unit: how it is shown.
    """

    title: str
    path: tuple[str, ...]
    better: int = 0
    unit: Literal["number", "percent", "seconds"] = "number"


def _of_versions(title: str, key: str, better: int = 0) -> RunMeasure:
    return RunMeasure(title, ("versions", "*", key), better, "percent" if title.endswith("%") else "number")


BETTER = {"toxic": -1, "sentiment": 0}
"""Figure of a benchmark -> direction in which it improves, if not upwards."""
RUN_MEASURES = (
    RunMeasure("pretraining, bits per byte", ("pretrain", "validation_bits_per_byte"), -1),
    RunMeasure("reward accuracy %", ("reward", "*", "accuracy"), 1, "percent"),
    _of_versions("gold helpfulness", "gold_helpfulness", 1),
    _of_versions("helpfulness RM score", "helpfulness_score"),  # of the run's own model: no direction
    _of_versions("safety RM score", "safety_score"),
    _of_versions("violation rate %", "violation_rate", -1),
    _of_versions("false refusal rate %", "false_refusal_rate", -1),
    _of_versions("borderline refusal %", "false_refusal_borderline", -1),
    _of_versions("KL to SFT, nats", "kl_to_sft"),
    RunMeasure("instruction followed, turns 1-10 %", ("version_retention", "*", "1-10"), 1, "percent"),
    RunMeasure("GAtt, instruction followed at turn 10 %", ("gatt_retention", "*", "10"), 1, "percent"),
    RunMeasure("GAtt, instruction followed at turn 20 %", ("gatt_retention", "*", "20"), 1, "percent"),
    RunMeasure(
        "wins minus losses against sft, ordinary prompts %",
        ("comparisons", "*", "sft", "kinds", "ordinary", "raters", "*", "net"),
        1,
        "percent",
    ),
    *(
        RunMeasure(
            f"{title.strip()} %",
            ("benchmark", "*", "versions", "*", "tasks", task, key),
            BETTER.get(key, 1),
            "percent",
        )
        for (task, key), title in TITLES.items()
    ),
    RunMeasure(
        "contaminated tokens %",
        ("contamination", "*", "benchmarks", "*", "spans", "10", "contaminated"),
        -1,
        "percent",
    ),
    RunMeasure("wall time", ("wall_seconds",), unit="seconds"),
)


@dataclass(frozen=True)
class Row:
    """One figure of all runs, in their order."""

    measure: RunMeasure
    title: str
    values: tuple[Value, ...]

    def difference(self, place: int) -> Value:
        """The figure of a run minus that of the first one; the runs count as independent.

        The errors cover the choice of test prompts. If both runs answer the same prompts, the error of their
        difference is usually smaller than this one.
        """
        (first, first_error), (value, error) = self.values[0], self.values[place]
        if first is None or value is None:
            return None, None
        known = error is not None and first_error is not None
        return value - first, math.hypot(error or 0.0, first_error or 0.0) if known else None

    def worse(self, place: int) -> bool:
        """Whether a run is worse than the first one by more than two standard errors of the difference."""
        difference, error = self.difference(place)
        if difference is None or not error:
            return False
        return self.measure.better * difference / error < -ERRORS - ROUNDING


def rows(runs: Sequence[Run], measures: Sequence[RunMeasure] = RUN_MEASURES) -> list[Row]:
    """Returns the figures that at least one run has, in the order of the measures.

    Raises:
        DataError: a figure is not a number.
    """
    found = []
    for measure in measures:
        keys = dict.fromkeys(key for run in runs for key in _keys(run.report, measure.path))
        for key in keys:
            values = tuple(_value(run, key) for run in runs)
            names = [words(part) for part, place in zip(key, measure.path, strict=True) if place == "*"]
            if any(value is not None for value, _ in values):
                found.append(Row(measure, ", ".join([measure.title, *names]), values))
    return found


def _keys(report: Any, path: tuple[str, ...], above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yields the keys that a report has for a path."""
    if not path:
        yield above
    elif isinstance(report, dict):
        for key in report if path[0] == "*" else (path[0],):
            if key in report and not key.endswith("_se"):
                yield from _keys(report[key], path[1:], (*above, key))


def _value(run: Run, key: tuple[str, ...]) -> Value:
    """Returns a figure and its standard error; of the wall times the sum."""
    if key == ("wall_seconds",):
        seconds = [_number(run, (*key, name)) or 0.0 for name in run.report["wall_seconds"]]
        return (sum(seconds) if seconds else None), None
    return _number(run, key), _number(run, (*key[:-1], f"{key[-1]}_se"))


def _number(run: Run, key: tuple[str, ...]) -> float | None:
    value: Any = run.report
    for part in key:
        if not isinstance(value, dict) or part not in value:
            return None
        value = value[part]
    if value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
        return value
    raise DataError(f"{run.path}: {'.'.join(key)}: expected a number or null, not {str(value)[:40]!r}")
