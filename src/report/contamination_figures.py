"""Figures of contamination (section A.6): SVG, or None where nothing was measured."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from .contamination_tables import SUBSETS, searched_benchmarks, shown_span
from .style import COLOUR, WIDTH, legend_beside, line_styles, point_styles, style, to_svg, value_axis_only

Report = dict[str, Any]


def overlap(report: Report) -> str | None:
    """Draws the share of contaminated tokens of each benchmark by minimum span."""
    benchmarks = list(searched_benchmarks(report))
    if not benchmarks:
        return None
    with style():
        figure = Figure(figsize=(WIDTH, max(2.8, 0.2 * len(benchmarks) + 0.8)), layout="constrained")
        axes = figure.subplots()
        for (name, figures), look in zip(benchmarks, line_styles(), strict=False):
            spans = {int(span): one for span, one in figures["spans"].items()}
            shares = [one["contaminated"] for one in spans.values()]
            errors = [one["contaminated_se"] or 0.0 for one in spans.values()]
            axes.errorbar(list(spans), shares, yerr=errors, label=name, marker="o", **look)
            axes.set_xticks(list(spans))
        axes.set_xlabel("minimum number of tokens in a span")
        axes.set_ylabel("contaminated tokens")
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=None))
        legend_beside(axes)
        return to_svg(figure, "overlap", "Share of contaminated tokens of each benchmark by minimum span")


def scores(report: Report) -> str | None:
    """Draws the score of each subset minus that of all samples, with two errors of random samples."""
    benchmarks = [
        (f"{name}, spans ≥ {shown_span(figures)}", figures["spans"][shown_span(figures)]["subsets"])
        for name, figures in searched_benchmarks(report)
        if figures["spans"][shown_span(figures)]["affected"] is not None
    ]
    if not benchmarks:
        return None
    with style():
        figure = Figure(figsize=(WIDTH, 0.55 * len(benchmarks) + 1.0), layout="constrained")
        axes = figure.subplots()
        axes.axvline(0, color=COLOUR["ink"], lw=1)
        for place, ((key, title), look) in enumerate(zip(SUBSETS.items(), point_styles(), strict=False)):
            points = [
                (row + (place - 1.5) * 0.18, subsets[key])
                for row, (_, subsets) in enumerate(benchmarks)
                if subsets[key]["z"] is not None
            ]
            rows = [row for row, _ in points]
            differences = [one["score"] - one["expected"] for _, one in points]
            errors = [
                2 * abs(difference / one["z"]) if one["z"] else 0.0
                for difference, (_, one) in zip(differences, points, strict=True)
            ]
            axes.errorbar(differences, rows, xerr=errors, ls="", label=title, **look)
        axes.set_yticks(range(len(benchmarks)), [name for name, _ in benchmarks])
        axes.set_ylim(len(benchmarks) - 0.5, -0.5)
        axes.set_xlabel("score of the subset − score of all samples")
        value_axis_only(axes, "x")
        legend_beside(axes)
        return to_svg(figure, "contamination_scores", "Scores of clean and dirty subsets of each benchmark")
