"""Figure of the benchmarks: SVG, or None where nothing was measured."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from .benchmark_tables import TITLES, measured, stages
from .paper import BENCHMARKS, MODELS
from .style import COLOUR, WIDTH, point_styles, style, to_svg, value_axis_only
from .words import words

Report = dict[str, Any]

SIGNED = "sentiment"
"""Figure from -1 to 1, which shares no axis with percentages."""


def benchmarks(report: Report) -> str | None:
    """Draws the figures of all versions with errors, beside the paper's base models."""
    for metrics in stages(report).values():
        found = [
            (task, key, figures)
            for task, key, figures in measured(metrics)
            if key != SIGNED and any(one.get(key) is not None for one in figures.values())
        ]
        if found:
            return _draw(found, list(metrics["versions"]))
    return None


def _draw(found: list[tuple[str, str, dict[str, Report]]], versions: list[str]) -> str:
    with style():
        figure = Figure(figsize=(WIDTH, 0.9 + 0.36 * len(found)), layout="constrained")
        axes = figure.subplots()
        for place, (task, key, _) in enumerate(found):
            for model, value in BENCHMARKS.get(task, {}).get(key, {}).items():
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
                (figures[name][key], place + shift, figures[name].get(f"{key}_se") or 0.0)
                for place, (_, key, figures) in enumerate(found)
                if figures[name].get(key) is not None
            ]
            values, places, errors = ([point[part] for point in points] for part in range(3))
            axes.errorbar(values, places, xerr=errors, ls="", label=words(name), **look)
        axes.set_yticks(range(len(found)), [TITLES[task, key].strip() for task, key, _ in found])
        axes.set_ylim(len(found) - 0.5, -0.7)
        axes.set_xlim(left=0)
        axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axes.tick_params(axis="y", labelcolor=COLOUR["ink"])
        value_axis_only(axes, "x")
        axes.legend(loc="lower right")
        names = ", ".join(MODELS)
        return to_svg(figure, "benchmarks", f"Benchmarks of all versions, beside the paper's {names}")
