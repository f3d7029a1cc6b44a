"""Figures that compare the versions from the report's dictionary: SVG, or None if not measured."""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, PercentFormatter

from .measured import answered_prompts, measured_versions
from .style import (
    COLOUR,
    GOLD,
    HELPFULNESS,
    SAFETY,
    WIDTH,
    legend_beside,
    name_ticks,
    panels,
    style,
    to_svg,
)

Report = dict[str, Any]


def versions(report: Report) -> str | None:
    """Draws gold helpfulness, safety and false refusals of each version, with standard errors."""
    groups = (
        (f"gold helpfulness{_sample_size(report, 'ordinary')}", (("gold_helpfulness", None, GOLD),)),
        (
            f"harmful prompts{_sample_size(report, 'harmful')}",
            (
                ("violation_rate", "harmful answers", COLOUR["red"]),
                ("invalid_rate", "invalid answers", COLOUR["grey"]),
                ("refusal_rate", "refusals", COLOUR["green"]),
            ),
        ),
        (
            "false refusals",
            (
                ("false_refusal_rate", "ordinary prompts", COLOUR["ink"]),
                ("false_refusal_borderline", "borderline prompts", COLOUR["grey"]),
            ),
        ),
    )
    measured = [group for group in groups if any(_series(report, key)[0] for key, *_ in group[1])]
    if not measured:
        return None
    with style():
        figure, row = panels(len(measured), 2.7)
        for axes, (title, series) in zip(row, measured, strict=True):
            for key, label, colour in series:
                _version_line(axes, report, key, label=label, color=colour)
            axes.set_title(title)
            name_ticks(axes, list(measured_versions(report)), WIDTH / len(measured))
            if series[0][0] == "gold_helpfulness":
                axes.set_ylim(0, 1)
                axes.set_ylabel("mean, 0 to 1")
                _demonstration_line(axes, report["demonstrations"]["gold_helpfulness"])
            else:
                _rate_axis(axes)
                axes.set_ylabel("share of answers")
        return to_svg(figure, "versions", "Gold helpfulness, violations and false refusals of each version")


def reward_by_round(report: Report) -> str | None:
    """Draws the mean score of each version's answers by all reward models, and gold helpfulness."""
    series = (
        ("safety_score", "safety RM, harmful prompts", SAFETY),
        ("helpfulness_score", "helpfulness RM, ordinary prompts", HELPFULNESS),
        ("judge_score", "third RM, both kinds of prompts", COLOUR["green"]),
        ("gold_helpfulness", "gold helpfulness, ordinary prompts", GOLD),
    )
    if not any(_series(report, key)[0] for key, *_ in series[:3]):
        return None
    with style():
        figure, (axes,) = panels(1, 2.7)
        for key, label, colour in series:
            dashes = {"ls": (0, (4, 2))} if key == "judge_score" else {}
            _version_line(axes, report, key, label=label, color=colour, **dashes)
        name_ticks(axes, list(measured_versions(report)), 0.7 * WIDTH)
        axes.set_ylim(0, 1.05)
        axes.set_ylabel("mean score, 0 to 1")
        legend_beside(axes)
        return to_svg(figure, "rounds", "Mean reward-model score of each version")


def _sample_size(report: Report, kind: str) -> str:
    """Returns ` (n = 500)`, the number of test prompts of a kind; nothing if it is unknown."""
    number = answered_prompts(report, kind)
    return f" (n = {number:,})" if number else ""


def _series(report: Report, key: str) -> tuple[list[int], list[float], list[float]]:
    """Returns places, values and standard errors of one measure for the versions that have it."""
    points = [
        (place, figures[key], figures.get(f"{key}_se") or 0.0)
        for place, figures in enumerate(measured_versions(report).values())
        if figures.get(key) is not None
    ]
    places, values, errors = zip(*points, strict=True) if points else ((), (), ())
    return list(places), list(values), list(errors)


def _version_line(axes: Axes, report: Report, key: str, **line: Any) -> None:
    places, values, errors = _series(report, key)
    if places:
        axes.errorbar(places, values, yerr=errors, marker="o", **line)


def _demonstration_line(axes: Axes, value: float | None) -> None:
    """Draws the mean gold helpfulness of the SFT demonstrations."""
    if value is None:
        return
    axes.axhline(value, color=COLOUR["soft"], ls=(0, (4, 3)), lw=1)
    right = axes.get_xlim()[1]
    axes.text(right, value, "demonstrations", color=COLOUR["soft"], ha="right", va="top")


def _rate_axis(axes: Axes) -> None:
    """Formats a percent axis from 0 to at most 100, with space for the legend above the points."""
    lines = len(axes.get_legend_handles_labels()[1])
    top = max(axes.get_ylim()[1] * (1.1 + 0.13 * lines), 0.01)
    axes.set_ylim(0, top)
    axes.set_yticks([tick for tick in MaxNLocator(5).tick_values(0, top) if tick <= min(top, 1)])
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0 if top > 0.1 else 1))
    axes.legend(loc="upper right")
