"""Figures of training from the report's dictionary: SVG, or None where nothing was measured."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ..console import duration
from .style import COLOUR, MEMBERS, WIDTH, line_styles, panels, style, to_svg, value_axis_only
from .words import words

LOSS_LABELS = {"reward": "ranking loss, nats per pair"}
NEXT_TOKEN_LOSS = "loss, nats per token"

Report = dict[str, Any]


def loss_curves(report: Report) -> str | None:
    """Draws the training loss of each stage by optimizer step; stages of one kind share a panel."""
    curves = {name: curve for name, curve in report["curves"].items() if curve["step"]}
    kinds = list(dict.fromkeys(curve["stage"] for curve in curves.values()))
    if not kinds:
        return None
    with style():
        figure, row = panels(len(kinds), 2.5)
        for axes, kind in zip(row, kinds, strict=True):
            members = [(name, curve) for name, curve in curves.items() if curve["stage"] == kind]
            for (name, curve), line in zip(members, line_styles(), strict=False):
                axes.plot(curve["step"], curve["loss"], lw=1.2, label=words(name), **line)
            axes.set_title(words(kind))
            axes.set_xlabel("optimizer step")
            axes.set_ylabel(LOSS_LABELS.get(kind, NEXT_TOKEN_LOSS))
            axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
            axes.legend(loc="upper right", fontsize=None if len(members) <= len(MEMBERS) else "x-small")
        return to_svg(figure, "loss", "Training loss by optimizer step of each trained stage")


def wall_time(report: Report) -> str | None:
    """Draws the wall time of each stage."""
    seconds = report["wall_seconds"]
    if not seconds:
        return None
    with style():
        figure = Figure(figsize=(WIDTH, 0.6 + 0.24 * len(seconds)), layout="constrained")
        axes = figure.subplots()
        names = list(seconds)
        axes.barh(range(len(names)), list(seconds.values()), 0.62, color=COLOUR["blue"])
        longest = max(seconds.values())
        for place, value in enumerate(seconds.values()):
            axes.text(value + longest * 0.008, place, duration(value), va="center", color=COLOUR["ink"])
        axes.set_yticks(range(len(names)), [words(name) for name in names])
        axes.tick_params(axis="y", labelcolor=COLOUR["ink"])
        axes.invert_yaxis()
        axes.set_xlim(0, longest * 1.12 or 1)
        axes.set_xticks([])
        value_axis_only(axes, "x")
        return to_svg(figure, "time", "Wall time of each stage")
