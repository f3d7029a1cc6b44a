"""Figures of the reward models from the report's dictionary: SVG, or None where nothing was measured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from ..data.rows import RATINGS
from .collect import BY_GROUP, BY_LENGTH
from .paper import REWARD_ACCURACY
from .style import COLOUR, MEMBERS, panels, style, to_svg, value_axis_only
from .words import count, group_title, words

Report = dict[str, Any]

GROUP_LABELS = {
    "accuracy": "all pairs",
    "significantly_better": "significantly\nbetter",
    "slightly_better": "slightly\nbetter",
    "negligibly_better": "negligibly\nbetter",
    "longer_chosen": "longer answer\nchosen",
    "shorter_chosen": "shorter answer\nchosen",
}


def reward_accuracy(report: Report) -> str | None:
    """Draws the accuracy of the reward models on all pairs, by rating and by length, with standard errors.

    Diamonds are the paper's figures for the model of the same kind.
    """
    models = measured_models(report)
    accuracies = {name: _accuracies(model) for name, model in models.items()}
    groups = [
        name
        for name in ("accuracy", *RATINGS, *BY_LENGTH)
        if any(model[name] is not None for model in accuracies.values())
    ]
    if not models:
        return None
    with style():
        figure, (axes,) = panels(1, 2.7)
        _bars(axes, accuracies, groups, titles=_titles(models), paper=REWARD_ACCURACY)
        axes.set_xticks(range(len(groups)), [GROUP_LABELS.get(name) or words(name) for name in groups])
        return to_svg(figure, "accuracy", "Accuracy of the reward models by rating and by length")


def reward_groups(report: Report) -> str | None:
    """Draws the accuracy of the reward models by context and risk category of the prompt, and on evasions."""
    models = measured_models(report)
    accuracies = {name: _group_accuracies(model) for name, model in models.items()}
    labels = [f"{key}/{group}" for key in BY_GROUP for model in models.values() for group in model[key]]
    names = dict.fromkeys([*labels, "evasions"])
    groups = [name for name in names if any(name in model for model in accuracies.values())]
    if not groups:
        return None
    with style():
        figure, (axes,) = panels(1, 2.7)
        measured = {name: model for name, model in accuracies.items() if model}
        _bars(axes, measured, groups, titles=_titles({name: models[name] for name in measured}))
        labels = [_group_label(key) for key in groups]
        axes.set_xticks(range(len(groups)), labels)
        return to_svg(figure, "reward_groups", "Accuracy of the reward models by context and risk category")


def measured_models(report: Report) -> dict[str, Report]:
    """Returns the reward models with a measured accuracy."""
    return {name: model for name, model in report["reward"].items() if model["accuracy"] is not None}


def _bars(
    axes: Axes,
    models: dict[str, Report],
    groups: Sequence[str],
    *,
    titles: dict[str, str],
    paper: dict[str, dict[str, float]] | None = None,
) -> None:
    """Draws a bar per group and model, with its standard error, its percent and the paper's figure."""
    width = 0.8 / len(models)
    crowded = len(models) > len(MEMBERS) or len(models) * len(groups) > 24
    for place, (name, model) in enumerate(models.items()):
        look: dict[str, Any] = {
            "color": MEMBERS[place % len(MEMBERS)],
            "alpha": 0.5 if place >= len(MEMBERS) else 1,
        }
        measured = [(group, key) for group, key in enumerate(groups) if model.get(key) is not None]
        for group, key in measured:
            label, value = titles[name] if key == measured[0][1] else None, model[key]
            x, error = group + (place - (len(models) - 1) / 2) * width, model.get(f"{key}_se")
            axes.bar(x, value, width * 0.94, label=label, **look)
            axes.errorbar(x, value, yerr=error, color=COLOUR["ink"], lw=1)
            if not crowded:
                percent = f"{value:.0%}".rstrip("%" if len(models) > 2 else "")
                axes.text(x, value + (error or 0) + 0.02, percent, ha="center", color=COLOUR["ink"])
            if (other := (paper or {}).get(name, {}).get(key)) is not None:
                axes.plot(x, other, **_PAPER)
    if paper and any(name in paper for name in models):
        axes.plot([], [], label="paper, 70B", **_PAPER)
    _accuracy_axis(axes, len(groups))


_PAPER: dict[str, Any] = {
    "ls": "",
    "marker": "D",
    "ms": 4,
    "color": COLOUR["page"],
    "mec": COLOUR["ink"],
    "mew": 0.9,
}


def _accuracy_axis(axes: Axes, groups: int) -> None:
    axes.axhline(0.5, color=COLOUR["soft"], ls=(0, (4, 3)), lw=1)
    axes.text(groups - 0.55, 0.51, "chance", color=COLOUR["soft"], ha="left", va="bottom")
    axes.set_xlim(-0.6, groups - 0.2)
    axes.set_ylim(0, 1.16)
    axes.set_ylabel("accuracy on held-out pairs")
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1])
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    value_axis_only(axes, "y")
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=5, borderaxespad=0, handlelength=1)


def _titles(models: dict[str, Report]) -> dict[str, str]:
    """Returns the models' titles, with the number of their held-out pairs where there is space."""
    return {
        name: f"{words(name)} ({count(model['pairs'])} pairs)"
        if len(models) < 4 and model["pairs"]
        else words(name)
        for name, model in models.items()
    }


def _accuracies(model: Report) -> Report:
    return {**model, **model["by_rating"], **model["by_length"]}


def _parts(model: Report) -> dict[str, Report]:
    """Returns the parts of the held-out pairs by context and risk category, and the evasions."""
    parts = {f"{key}/{group}": part for key in BY_GROUP for group, part in model[key].items()}
    return parts | {"evasions": model["evasions"] or {}}


def _group_accuracies(model: Report) -> Report:
    """Returns the accuracy on each part in which it was measured, with errors."""
    found: Report = {}
    for name, part in _parts(model).items():
        if part.get("accuracy") is not None:
            found |= {name: part["accuracy"], f"{name}_se": part.get("accuracy_se")}
    return found


def _group_label(key: str) -> str:
    dimension, _, group = key.partition("/")
    title = group_title(dimension.removeprefix("by_"), group) if group else words(key)
    return title.replace(", ", ",\n").replace(" ", "\n", 1) if len(title) > 9 else title
