"""The figures, each drawn from the report's dictionary alone: SVG, or None where nothing was measured."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import cycle, pairwise
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from ..console import duration
from ..data.rows import RATINGS
from .collect import BY_LENGTH
from .measured import measured_versions
from .style import (
    COLOUR,
    GOLD,
    HELPFULNESS,
    SAFETY,
    WIDTH,
    legend_beside,
    panels,
    style,
    to_svg,
    value_axis_only,
)
from .words import words

VERSION_LABELS = {"sft": "SFT", "v1": "V1", "v2_rejection": "V2\nrejection", "v2": "V2\nPPO"}
GROUP_LABELS = {
    "accuracy": "all pairs",
    "significantly_better": "significantly\nbetter",
    "slightly_better": "slightly\nbetter",
    "negligibly_better": "negligibly\nbetter",
    "longer_chosen": "longer one\nchosen",
    "shorter_chosen": "shorter one\nchosen",
}
CURVE_COLOURS = (COLOUR["blue"], COLOUR["orange"], COLOUR["green"], COLOUR["red"], COLOUR["grey"])

Report = dict[str, Any]


def loss_curves(report: Report) -> str | None:
    """Training loss of each stage against its step; stages of one kind share a panel."""
    curves = {name: curve for name, curve in report["curves"].items() if curve["step"]}
    kinds = list(dict.fromkeys(curve["stage"] for curve in curves.values()))
    if not kinds:
        return None
    with style():
        figure, row = panels(len(kinds), 2.5)
        for axes, kind in zip(row, kinds, strict=True):
            members = [(name, curve) for name, curve in curves.items() if curve["stage"] == kind]
            for (name, curve), colour in zip(members, cycle(CURVE_COLOURS)):
                axes.plot(curve["step"], curve["loss"], color=colour, lw=1.2, label=words(name))
            axes.set_title(words(kind))
            axes.set_xlabel("step")
            axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
            axes.legend(loc="upper right")
        row[0].set_ylabel("loss")
        return to_svg(figure, "loss", "Training loss by step for each trained stage")


def reward_accuracy(report: Report) -> str | None:
    """Accuracy of the reward models: of all pairs, by rating, by length; standard errors, line of chance."""
    models = {name: found for name, found in report["reward"].items() if found["accuracy"] is not None}
    groups = [
        name
        for name in ("accuracy", *RATINGS, *BY_LENGTH)
        if any(_accuracies(found)[name] is not None for found in models.values())
    ]
    if not models:
        return None
    with style():
        figure, (axes,) = panels(1, 2.7)
        width = 0.8 / len(models)
        for place, (name, colour) in enumerate(zip(models, cycle(CURVE_COLOURS))):
            found = _accuracies(models[name])
            for group, key in enumerate(groups):
                value, error = found[key], found[f"{key}_se"]
                if value is None:
                    continue
                x = group + (place - (len(models) - 1) / 2) * width
                label = words(name) if key == "accuracy" else None
                axes.bar(x, value, width * 0.94, color=colour, label=label)
                axes.errorbar(x, value, yerr=error, color=COLOUR["ink"], lw=1)
                percent = f"{value:.0%}".rstrip("%" if len(models) > 2 else "")
                axes.text(x, value + (error or 0) + 0.02, percent, ha="center", color=COLOUR["ink"])
        axes.axhline(0.5, color=COLOUR["soft"], ls=(0, (4, 3)), lw=1)
        axes.text(len(groups) - 0.55, 0.51, "chance", color=COLOUR["soft"], ha="left", va="bottom")
        axes.set_xticks(range(len(groups)), [GROUP_LABELS.get(name) or words(name) for name in groups])
        axes.set_xlim(-0.6, len(groups) - 0.2)
        axes.set_ylim(0, 1.16)
        axes.set_yticks([0, 0.25, 0.5, 0.75, 1])
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        value_axis_only(axes, "y")
        _legend_above(axes)
        return to_svg(figure, "accuracy", "Reward model accuracy by rating and by length")


def _accuracies(found: Report) -> Report:
    return {**found, **found["by_rating"], **found["by_length"]}


def ppo_progress(report: Report) -> str | None:
    """Reward-model scores and KL to the start through the iterations of PPO."""
    ppo = report["ppo"]
    if not ppo["iteration"]:
        return None
    with style():
        figure, (left, right) = panels(2, 2.5)
        for key, label, colour in (
            ("score", "piecewise: what is rewarded", COLOUR["ink"]),
            ("helpfulness_score", "helpfulness", HELPFULNESS),
            ("safety_score", "safety", SAFETY),
        ):
            points = [(x, y) for x, y in zip(ppo["iteration"], ppo[key], strict=True) if y is not None]
            if points:
                left.plot(*zip(*points, strict=True), color=colour, label=label)
        left.set_title("mean score of the sampled answers")
        _legend_within(left)
        known = [(x, y) for x, y in zip(ppo["iteration"], ppo["kl"], strict=True) if y is not None]
        if known:
            right.plot(*zip(*known, strict=True), color=COLOUR["ink"])
        right.set_title("KL to the start, nats an answer")
        right.set_ylim(bottom=min([0, *(y for _, y in known)]))
        rounds = list(zip(ppo["iteration"], ppo["round"], strict=True))
        for axes in (left, right):
            for (last, one), (first, other) in pairwise(rounds):
                if one != other:
                    # not up to the top, where the legend is
                    axes.axvline((last + first) / 2, 0, 0.6, color=COLOUR["soft"], ls=(0, (4, 3)), lw=1)
            axes.set_xlabel("PPO iteration")
            axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        return to_svg(figure, "ppo", "Reward and KL divergence by PPO iteration")


def versions(report: Report) -> str | None:
    """Gold helpfulness, safety and false refusals of each version, with standard errors."""
    groups = (
        ("gold helpfulness", (("gold_helpfulness", None, GOLD),)),
        (
            "answers to harmful requests",
            (
                ("violation_rate", "harmful", COLOUR["red"]),
                ("invalid_rate", "neither harmful nor refusal", COLOUR["grey"]),
                ("refusal_rate", "refused", COLOUR["green"]),
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
                _version_line(axes, report, key, label, colour)
            axes.set_title(title)
            _version_ticks(axes, measured_versions(report))
            if title == "gold helpfulness":
                axes.set_ylim(0, 1)
                _demonstration_line(axes, report["demonstrations"]["gold_helpfulness"])
            else:
                _rate_axis(axes)
        return to_svg(figure, "versions", "Gold helpfulness, violations and false refusals of each version")


def reward_by_round(report: Report) -> str | None:
    """Mean score of each version's answers under both reward models, beside the gold helpfulness."""
    series = (
        ("safety_score", "safety model, harmful prompts", SAFETY),
        ("helpfulness_score", "helpfulness model, ordinary prompts", HELPFULNESS),
        ("gold_helpfulness", "gold helpfulness, ordinary prompts", GOLD),
    )
    if not any(_series(report, key)[0] for key, *_ in series[:2]):
        return None
    with style():
        figure, (axes,) = panels(1, 2.7)
        for key, label, colour in series:
            _version_line(axes, report, key, label, colour)
        _version_ticks(axes, measured_versions(report))
        axes.set_ylim(0, 1.05)
        legend_beside(axes)
        return to_svg(figure, "rounds", "Mean reward-model score of each version")


def wall_time(report: Report) -> str | None:
    """Seconds that each stage took."""
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
        return to_svg(figure, "time", "Wall time of each stage in seconds")


def _series(report: Report, key: str) -> tuple[list[int], list[float], list[float]]:
    """Places, values and errors of one measure over the versions that have it."""
    found = [
        (place, figures[key], figures[f"{key}_se"] or 0.0)
        for place, figures in enumerate(measured_versions(report).values())
        if figures[key] is not None
    ]
    places, values, errors = zip(*found, strict=True) if found else ((), (), ())
    return list(places), list(values), list(errors)


def _version_line(axes: Axes, report: Report, key: str, label: str | None, colour: str) -> None:
    places, values, errors = _series(report, key)
    if places:
        axes.errorbar(places, values, yerr=errors, color=colour, marker="o", label=label)


def _demonstration_line(axes: Axes, value: float | None) -> None:
    """The worth of the demonstrations that SFT imitates."""
    if value is None:
        return
    axes.axhline(value, color=COLOUR["soft"], ls=(0, (4, 3)), lw=1)
    right = axes.get_xlim()[1]
    axes.text(right, value, "demonstrations", color=COLOUR["soft"], ha="right", va="top")


def _version_ticks(axes: Axes, names: Iterable[str]) -> None:
    labels = [VERSION_LABELS.get(name, words(name)) for name in names]
    axes.set_xticks(range(len(labels)), labels)
    axes.set_xlim(-0.4, len(labels) - 0.6)
    value_axis_only(axes, "y")


def _rate_axis(axes: Axes) -> None:
    """Percent from zero to 100 at most, with room for the legend above the points."""
    top = max(axes.get_ylim()[1] * 1.3, 0.01)
    axes.set_ylim(0, top)
    axes.set_yticks([tick for tick in MaxNLocator(5).tick_values(0, top) if tick <= min(top, 1)])
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0 if top > 0.1 else 1))
    axes.legend(loc="upper right")


def _legend_within(axes: Axes) -> None:
    """In room made for it above the lines."""
    low, high = axes.get_ylim()
    axes.set_ylim(low, high + 0.5 * (high - low))
    axes.legend(loc="upper left")


def _legend_above(axes: Axes) -> None:
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=3, borderaxespad=0, handlelength=1)
