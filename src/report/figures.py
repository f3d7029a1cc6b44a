"""Figures of training from the report's dictionary: SVG, or None where nothing was measured."""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from ..console import duration
from ..data.rows import RATINGS
from .collect import BY_LENGTH
from .style import COLOUR, MEMBERS, WIDTH, line_styles, panels, style, to_svg, value_axis_only
from .words import count, words

GROUP_LABELS = {
    "accuracy": "all pairs",
    "significantly_better": "significantly\nbetter",
    "slightly_better": "slightly\nbetter",
    "negligibly_better": "negligibly\nbetter",
    "longer_chosen": "longer answer\nchosen",
    "shorter_chosen": "shorter answer\nchosen",
}

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


def reward_accuracy(report: Report) -> str | None:
    """Draws the accuracy of the reward models on all pairs, by rating and by length, with standard errors."""
    models = {name: model for name, model in report["reward"].items() if model["accuracy"] is not None}
    groups = [
        name
        for name in ("accuracy", *RATINGS, *BY_LENGTH)
        if any(_accuracies(model)[name] is not None for model in models.values())
    ]
    if not models:
        return None
    with style():
        figure, (axes,) = panels(1, 2.7)
        width = 0.8 / len(models)
        for place, (name, model) in enumerate(models.items()):
            colour, paler = MEMBERS[place % len(MEMBERS)], place >= len(MEMBERS)
            accuracies = _accuracies(model)
            title = words(name)
            if len(models) < 4 and model["pairs"]:
                title += f" ({count(model['pairs'])} pairs)"
            for group, key in enumerate(groups):
                value, error = accuracies[key], accuracies[f"{key}_se"]
                if value is None:
                    continue
                x = group + (place - (len(models) - 1) / 2) * width
                label = title if key == "accuracy" else None
                axes.bar(x, value, width * 0.94, color=colour, alpha=0.5 if paler else 1, label=label)
                axes.errorbar(x, value, yerr=error, color=COLOUR["ink"], lw=1)
                if len(models) <= len(MEMBERS):
                    percent = f"{value:.0%}".rstrip("%" if len(models) > 2 else "")
                    axes.text(x, value + (error or 0) + 0.02, percent, ha="center", color=COLOUR["ink"])
        axes.axhline(0.5, color=COLOUR["soft"], ls=(0, (4, 3)), lw=1)
        axes.text(len(groups) - 0.55, 0.51, "chance", color=COLOUR["soft"], ha="left", va="bottom")
        axes.set_xticks(range(len(groups)), [GROUP_LABELS.get(name) or words(name) for name in groups])
        axes.set_xlim(-0.6, len(groups) - 0.2)
        axes.set_ylim(0, 1.16)
        axes.set_ylabel("accuracy on held-out pairs")
        axes.set_yticks([0, 0.25, 0.5, 0.75, 1])
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        value_axis_only(axes, "y")
        _legend_above(axes)
        return to_svg(figure, "accuracy", "Accuracy of the reward models by rating and by length")


def _accuracies(model: Report) -> Report:
    return {**model, **model["by_rating"], **model["by_length"]}


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


def _legend_above(axes: Axes) -> None:
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=5, borderaxespad=0, handlelength=1)
