"""Figures of safety and helpfulness by group of prompts (section 4.4): SVG, or None if not measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, PercentFormatter

from ..measures import BREAKDOWN_LABELS
from .measured import first_decoding, measured_versions
from .regressions import is_worse, main_measures, version_before
from .style import COLOUR, WIDTH, point_styles, style, to_svg, value_axis_only
from .words import DIMENSION_TITLES, MEASURE_TITLES, group_title, words

Report = dict[str, Any]


@dataclass(frozen=True)
class View:
    """The figures of all versions with one decoding; differences are to the version before, where known."""

    title: str
    versions: Report
    breakdown: Report
    differences: Report
    breakdown_differences: Report

    def figures(self, version: str, row: Row) -> Report:
        if row.dimension is None:
            return self.versions.get(version) or {}
        return _group(self.breakdown, version, row)

    def compared(self, version: str, before: str, row: Row) -> Report:
        """Returns the paired differences between two versions; nothing if they were not measured."""
        if row.dimension is None:
            return (self.differences.get(version) or {}).get(before) or {}
        return _group(self.breakdown_differences.get(version) or {}, before, row)


@dataclass(frozen=True)
class Row:
    """A group of prompts; all prompts if `dimension` is None, the heading of a dimension without `group`."""

    dimension: str | None
    group: str | None = None

    @property
    def heading(self) -> bool:
        return self.dimension is not None and self.group is None


def violations_by_group(report: Report) -> str | None:
    """Draws violations of each version by group of harmful prompts; without gold scores, refusals."""
    measure = main_measures(report)[1]
    description = f"{MEASURE_TITLES[measure]} by group of prompts"
    return _by_group(report, "violation_groups", (measure,), description=description)


def false_refusals_by_group(report: Report) -> str | None:
    """Draws refusals of ordinary and of borderline prompts by group, for each version."""
    measures = ("false_refusal_rate", "false_refusal_borderline")
    return _by_group(report, "refusal_groups", measures, description="False refusals by group of prompts")


def helpfulness_by_group(report: Report) -> str | None:
    """Draws helpfulness of each version by group of ordinary prompts; without gold scores, of the model."""
    measure = main_measures(report)[0]
    description = f"{MEASURE_TITLES[measure]} by group of prompts"
    return _by_group(report, "helpfulness_groups", (measure,), description=description)


def views(report: Report) -> list[View]:
    """Returns the evaluation with each decoding, the first one first."""
    first = View(
        first_decoding(report),
        measured_versions(report),
        report["breakdown"],
        report["differences"],
        report["breakdown_differences"],
    )
    return [first] + [
        View(
            title,
            decoding.get("versions") or {},
            decoding.get("breakdown") or {},
            decoding.get("differences") or {},
            decoding.get("breakdown_differences") or {},
        )
        for title, decoding in report["decodings"].items()
    ]


def rows_of(found: Sequence[View], measures: Sequence[str]) -> list[Row]:
    """Returns all prompts, then each dimension's heading and the groups in which a measure was measured."""
    rows = [Row(None)]
    for dimension in BREAKDOWN_LABELS:
        groups = {
            group: None
            for view in found
            for version in view.versions
            for group, figures in (view.breakdown.get(version, {}).get(dimension) or {}).items()
            if any(figures.get(measure) is not None for measure in measures)
        }
        if groups:
            rows += [Row(dimension), *(Row(dimension, group) for group in groups)]
    return rows


def _by_group(report: Report, name: str, measures: Sequence[str], *, description: str) -> str | None:
    """Draws one panel per measure and decoding: groups from top to bottom, a point for each version."""
    found = views(report)
    rows = rows_of(found, measures)
    if len(rows) == 1:
        return None
    columns = [(measure, view) for view in found for measure in measures if _measured(view, measure)]
    versions = list(found[0].versions)
    limits = {measure: _limits(found, measure, rows) for measure in measures}
    with style():
        height = 0.9 + len(rows) * max(0.19, 0.05 + 0.065 * len(versions))
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        panels = figure.subplots(1, len(columns), squeeze=False, sharey=True)[0]
        for axes, (measure, view) in zip(panels, columns, strict=True):
            _panel(axes, view, measure, rows=rows, before=version_before(report))
            _value_axis(axes, limits[measure], ticks=3 if len(columns) > 2 else 5)
            title = MEASURE_TITLES[measure] if len(measures) > 1 else ""
            decoding = view.title.replace(", ", ",\n") if len(columns) > 3 else view.title
            axes.set_title("\n".join(filter(None, (title, decoding))))
        _group_axis(panels[0], rows)
        rings = any(_WORSE in axes.get_legend_handles_labels()[1] for axes in panels)
        handles = _handles(versions, rings=rings)
        figure.legend(handles=handles, loc="outside upper left", ncols=min(len(handles), 5))
        return to_svg(figure, name, description)


def _measured(view: View, measure: str) -> bool:
    return any(figures.get(measure) is not None for figures in view.versions.values())


def _panel(axes: Axes, view: View, measure: str, *, rows: Sequence[Row], before: Mapping[str, str]) -> None:
    count = len(view.versions)
    for place, (version, look) in enumerate(zip(view.versions, point_styles(), strict=False)):
        for y, row in enumerate(rows):
            figures = view.figures(version, row)
            if row.heading or figures.get(measure) is None:
                continue
            height = y + (place - (count - 1) / 2) * 0.8 / max(count, 2)
            error = figures.get(f"{measure}_se") or 0.0
            axes.errorbar(figures[measure], height, xerr=error, **_POINT, mec=look["color"], **look)
            differences = view.compared(version, before[version], row) if version in before else {}
            if is_worse(differences, measure):
                axes.plot(figures[measure], height, label=_WORSE, **_RING)


_POINT: dict[str, Any] = {"ls": "", "ms": 3.6, "lw": 1}
_WORSE = "worse than the version before"
_RING: dict[str, Any] = {"marker": "o", "ms": 8, "mfc": "none", "mec": COLOUR["ink"], "mew": 1.1, "ls": ""}


def _limits(found: Sequence[View], measure: str, rows: Sequence[Row]) -> tuple[float, float]:
    """Returns the axis of a measure: the same with each decoding; rates end where their error bars do."""
    if MEASURE_TITLES[measure].endswith("score") or measure == "gold_helpfulness":
        return 0.0, 1.02
    ends = [
        figures[measure] + (figures.get(f"{measure}_se") or 0.0)
        for view in found
        for version in view.versions
        for row in rows
        if (figures := view.figures(version, row)).get(measure) is not None
    ]
    right = min(max([*ends, 0.02]) * 1.04, 1.02)
    return -0.03 * right, right


def _value_axis(axes: Axes, limits: tuple[float, float], *, ticks: int) -> None:
    axes.set_xlim(*limits)
    if limits[0] == 0:
        axes.set_xlabel("mean, 0 to 1")
    else:
        axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0 if limits[1] > 0.1 else 1))
        axes.set_xlabel("share of answers")
    axes.xaxis.set_major_locator(MaxNLocator(ticks))
    value_axis_only(axes, "x")


def _group_axis(axes: Axes, rows: Sequence[Row]) -> None:
    """Labels the rows; the headings of the dimensions are bold."""
    axes.set_yticks(range(len(rows)), [_row_title(row) for row in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    for label, row in zip(axes.get_yticklabels(), rows, strict=True):
        label.set_color(COLOUR["ink"])
        if row.heading:
            label.set_fontweight("bold")


def _row_title(row: Row) -> str:
    if row.dimension is None:
        return "all prompts"
    if row.group is None:
        return DIMENSION_TITLES.get(row.dimension, words(row.dimension))
    return group_title(row.dimension, row.group)


def _handles(versions: Sequence[str], *, rings: bool) -> list[Line2D]:
    points = [
        Line2D([], [], ls="", ms=5, mec=look["color"], label=words(version), **look)
        for version, look in zip(versions, point_styles(), strict=False)
    ]
    return [*points, Line2D([], [], label=_WORSE, **_RING)] if rings else points


def _group(breakdown: Report, version: str, row: Row) -> Report:
    dimension = (breakdown.get(version) or {}).get(row.dimension) or {}
    return dimension.get(row.group) or {}
