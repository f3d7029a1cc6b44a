"""Figures of context distillation (section 4.2.4, figure 16): SVG, or None if not measured."""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from .regressions import BETTER, ERRORS
from .style import COLOUR, WIDTH, panels, point_styles, style, to_svg, value_axis_only
from .words import MEASURE_TITLES, difference_title, group_title, words

Report = dict[str, Any]

PREPROMPTS = {
    "original": ("no preprompt", COLOUR["grey"], (0, (4, 2))),
    "generic": ("generic preprompt", COLOUR["blue"], "-"),
    "tailored": ("tailored to the category", COLOUR["orange"], "-"),
}
"""Kind of answer -> title, colour and dashes of its line."""


def distillation(report: Report) -> str | None:
    """Draws the safety scores with and without preprompts, their change, and the share of kept answers."""
    stages = {name: metrics for name, metrics in report["distillation"].items() if metrics.get("prompts")}
    if not stages:
        return None
    with style():
        figure = Figure(figsize=(WIDTH, 3.0 * len(stages)), layout="constrained")
        rows = figure.subplots(len(stages), 3, squeeze=False)
        for row, (name, metrics) in zip(rows, stages.items(), strict=True):
            _distributions(row[0], metrics)
            _changes(row[1], metrics)
            _kept(row[2], metrics)
            if len(stages) > 1:
                row[0].set_title(f"{words(name)}: {row[0].get_title(loc='left')}")
        handles, labels = rows[0][0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper left", ncols=3)
        return to_svg(figure, "distillation", "Safety scores before and after context distillation")


def ablations(report: Report) -> str | None:
    """Draws the paired differences of each ablation to sft; two standard errors are drawn."""
    names = {name: figures for name, figures in report["ablation_differences"].items() if figures}
    measures = [key for key in BETTER if any(figures.get(key) is not None for figures in names.values())]
    if not measures:
        return None
    with style():
        figure, (axes,) = panels(1, 0.9 + 0.26 * len(measures) * max(1.0, 0.6 * len(names)))
        axes.axvline(0, color=COLOUR["soft"], lw=1)
        for place, ((name, figures), look) in enumerate(zip(names.items(), point_styles(), strict=False)):
            shift = (place - (len(names) - 1) / 2) * 0.6 / len(names)
            points = [
                (100 * figures[key], y + shift, 100 * ERRORS * (figures.get(f"{key}_se") or 0.0))
                for y, key in enumerate(measures)
                if figures.get(key) is not None
            ]
            x, y, error = zip(*points, strict=True)
            label = difference_title(name, "sft")
            axes.errorbar(x, y, xerr=error, ls="", lw=1.2, mec=look["color"], label=label, **look)
        axes.set_yticks(range(len(measures)), [_with_direction(key) for key in measures])
        axes.tick_params(axis="y", labelcolor=COLOUR["ink"])
        axes.set_ylim(len(measures) - 0.4, -0.6)
        left, right = axes.get_xlim()
        axes.set_xlim(min(left, -1), max(right, 1))  # noise of less than a point should look small
        axes.set_xlabel("difference in points (of 100), with two standard errors")
        value_axis_only(axes, "x")
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=4, borderaxespad=0)
        return to_svg(figure, "ablations", "Paired differences of the ablations to sft")


def _with_direction(key: str) -> str:
    return f"{MEASURE_TITLES[key]} ({'higher' if BETTER[key] > 0 else 'lower'} is better)"


def _distributions(axes: Axes, metrics: Report) -> None:
    """Draws the share of answers by safety score, in bins of equal width."""
    for kind, (label, colour, dashes) in PREPROMPTS.items():
        counts = (metrics.get("score_histograms") or {}).get(kind)
        if not counts or not sum(counts):
            continue
        shares = [number / sum(counts) for number in counts]
        edges = [place / len(counts) for place in range(len(counts) + 1)]
        axes.stairs(shares, edges, color=colour, ls=dashes, lw=1.5, label=label)
    axes.set_title("safety scores")
    axes.set_xlim(0, 1)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("safety RM score")
    axes.set_ylabel("share of answers")
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))


def _changes(axes: Axes, metrics: Report) -> None:
    """Draws the mean change of the score by the score of the answer without preprompt."""
    axes.axhline(0, color=COLOUR["soft"], lw=1)
    for kind in ("generic", "tailored"):
        _, colour, dashes = PREPROMPTS[kind]
        points = [
            ((part["from"] + part["to"]) / 2, part[kind], part.get(f"{kind}_se") or 0.0)
            for part in metrics.get("score_changes") or ()
            if part.get(kind) is not None
        ]
        if points:
            x, y, error = zip(*points, strict=True)
            axes.errorbar(x, y, yerr=error, color=colour, ls=dashes, marker="o", ms=3, lw=1.2)
    axes.set_title("change of the score")
    axes.set_xlim(0, 1)
    axes.set_xlabel("score without preprompt")
    axes.set_ylabel("mean change")


def _kept(axes: Axes, metrics: Report) -> None:
    """Draws the share of prompts whose distilled answer is kept, over all and by group."""
    groups = {"all prompts": metrics}
    groups |= {
        group_title("category", name): part for name, part in (metrics.get("by_category") or {}).items()
    }
    groups |= {words(name): part for name, part in (metrics.get("by_preprompt") or {}).items()}
    groups = {name: part for name, part in groups.items() if part.get("kept_share") is not None}
    for place, part in enumerate(groups.values()):
        value, error = part["kept_share"], part.get("kept_share_se") or 0.0
        axes.barh(place, value, 0.7, color=COLOUR["green" if place else "ink"], alpha=0.75)
        axes.errorbar(value, place, xerr=error, color=COLOUR["ink"], lw=1)
        axes.text(value + error + 0.02, place, f"{value:.0%}", va="center", color=COLOUR["ink"])
    axes.set_yticks(range(len(groups)), list(groups))
    axes.tick_params(axis="y", labelcolor=COLOUR["ink"])
    axes.set_ylim(len(groups) - 0.4, -0.6)
    axes.set_xlim(0, 1.18)
    axes.set_xticks([0, 0.5, 1])
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.set_title("kept by the gate")
    value_axis_only(axes, "x")
