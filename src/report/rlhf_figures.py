"""Figures of rejection sampling and PPO, drawn from the report's dictionary alone: SVG, or None."""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from .style import COLOUR, WIDTH, legend_beside, line_styles, name_ticks, panels, style, to_svg
from .words import words

Report = dict[str, Any]

PPO_PANELS = (
    ("score", "piecewise score"),
    ("helpfulness_score", "helpfulness score"),
    ("safety_score", "safety score"),
    ("kl", "KL to the start, nats"),
)


def rejection_scores(report: Report) -> str | None:
    """Mean score of all samples and of the selected ones, by stage of rejection sampling."""
    stages = report["rejection"]
    series = (
        ("best_score", "best of each prompt", COLOUR["blue"]),
        ("mean_score", "all samples", COLOUR["grey"]),
    )
    if not any(found[key] is not None for found in stages.values() for key, *_ in series):
        return None
    with style():
        figure, (axes,) = panels(1, 2.4)
        for key, label, colour in series:
            known = [(at, found[key]) for at, found in enumerate(stages.values()) if found[key] is not None]
            if known:
                axes.plot(*zip(*known, strict=True), color=colour, marker="o", label=label)
        name_ticks(axes, list(stages), 0.7 * WIDTH)
        axes.set_ylim(0, 1.05)
        axes.set_title("mean score of the sampled answers")
        legend_beside(axes)
        return to_svg(figure, "rejection", "Mean and best score by stage of rejection sampling")


def ppo_progress(report: Report) -> str | None:
    """Scores and KL to the start by iteration, a line for each PPO stage."""
    stages = {name: series for name, series in report["ppo"].items() if series["iteration"]}
    if not stages:
        return None
    with style():
        figure, row = panels(len(PPO_PANELS), 2.4)
        for axes, (key, title) in zip(row, PPO_PANELS, strict=True):
            for (name, series), look in zip(stages.items(), line_styles(), strict=False):
                _iteration_line(axes, series, key, label=words(name), **look)
            axes.set_title(title)
            axes.set_xlabel("iteration")
            axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        row[-1].set_ylim(bottom=min(0, row[-1].get_ylim()[0]))
        handles, labels = row[-1].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper left", ncols=5)
        return to_svg(figure, "ppo", "Reward and KL divergence by iteration of each PPO stage")


def _iteration_line(axes: Axes, series: Report, key: str, **look: Any) -> None:
    """The values that are known; where none is, the label alone, for the legend."""
    known = [(x, y) for x, y in zip(series["iteration"], series[key], strict=True) if y is not None]
    axes.plot([x for x, _ in known], [y for _, y in known], **look)
