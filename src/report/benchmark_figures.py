"""Figure of the benchmarks: SVG, or None where nothing was measured."""

from __future__ import annotations

from typing import Any, NamedTuple

from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from .benchmark_tables import TITLES, measured, stage_prefix, stages, tested_versions
from .paper import BENCHMARKS, MODELS
from .style import COLOUR, WIDTH, point_styles, style, to_svg, value_axis_only
from .words import words

Report = dict[str, Any]

SIGNED = "sentiment"
"""Figure from -1 to 1, which shares no axis with percentages."""


class _Row(NamedTuple):
    """A row of the figure: a benchmark's figure of the versions that ran it."""

    task: str
    key: str
    title: str
    figures: dict[str, Report]


def benchmarks(report: Report) -> str | None:
    """Draws the figures of all stages and versions with errors, beside the paper's base models."""
    found = [
        _Row(task, key, stage_prefix(report, stage) + TITLES[task, key].strip(), figures)
        for stage, metrics in stages(report).items()
        for task, key, figures in measured(metrics)
        if key != SIGNED and any(one.get(key) is not None for one in figures.values())
    ]
    return _draw(found, tested_versions(report)) if found else None


def _draw(found: list[_Row], versions: list[str]) -> str:
    with style():
        figure = Figure(figsize=(WIDTH, 0.9 + 0.36 * len(found)), layout="constrained")
        axes = figure.subplots()
        for place, row in enumerate(found):
            for model, value in BENCHMARKS.get(row.task, {}).get(row.key, {}).items():
                above = -12 if model == "GPT-3.5" else 6  # near the 70B in some rows
                axes.plot(value, place, marker="|", ms=11, color=COLOUR["grey"], ls="")
                axes.annotate(
                    model,
                    (value, place),
                    (0, above),
                    textcoords="offset points",
                    ha="center",
                    size="xx-small",
                )
        for number, (name, look) in enumerate(zip(versions, point_styles(), strict=False)):
            shift = (number - (len(versions) - 1) / 2) * 0.5 / len(versions)
            points = [
                (row.figures[name][row.key], place + shift, row.figures[name].get(f"{row.key}_se") or 0.0)
                for place, row in enumerate(found)
                if row.figures.get(name, {}).get(row.key) is not None
            ]
            values, places, errors = ([point[part] for point in points] for part in range(3))
            axes.errorbar(values, places, xerr=errors, ls="", label=words(name), **look)
        axes.set_yticks(range(len(found)), [row.title for row in found])
        axes.set_ylim(len(found) - 0.5, -0.7)
        axes.set_xlim(left=0)
        axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axes.tick_params(axis="y", labelcolor=COLOUR["ink"])
        value_axis_only(axes, "x")
        axes.legend(loc="lower right")
        names = ", ".join(MODELS)
        return to_svg(figure, "benchmarks", f"Benchmarks of all versions, beside the paper's {names}")
