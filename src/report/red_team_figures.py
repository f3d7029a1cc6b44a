"""Figures of red teaming (section 4.3): SVG, or None where nothing was measured."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import PercentFormatter

from .paper import MITIGATED
from .style import COLOUR, WIDTH, name_ticks, point_styles, style, to_svg
from .words import group_title, words

Report = dict[str, Any]

ALL = "all"
"""Row and column of the totals."""
DARKEST = 0.85  # opacity of a cell with 100% violations: its number stays readable
GROUPS = (("overall", "all prompts"), ("single", "one user message"), ("multi", "several user messages"))


def heat_maps(report: Report) -> str | None:
    """Draws violations by risk category (rows) and attack style (columns), with one map per version."""
    maps = [
        (stage, version, figures)
        for stage, metrics in report["red_team"].items()
        for version, figures in measured_attacks(metrics).items()
    ]
    if not maps:
        return None
    categories = [*_names(maps, "category"), ALL]
    attacks = [*_names(maps, "attack"), ALL]
    with style():
        height = len(maps) * (0.42 + 0.3 * len(categories)) + 0.4
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        column = figure.subplots(len(maps), 1, squeeze=False)[:, 0]
        for axes, (stage, version, figures) in zip(column, maps, strict=True):
            _heat_map(axes, figures, categories=categories, attacks=attacks)
            if axes is not column[-1]:
                axes.set_xticks([])
            several = len(report["red_team"]) > 1
            axes.set_title(f"{words(stage)}: {words(version)}" if several else words(version))
        return to_svg(figure, "heat_maps", "Violations by risk category and attack style for each version")


def by_turns(report: Report) -> str | None:
    """Draws violations of prompts with one and with several user messages, and the mitigated share."""
    stages = {name: metrics for name, metrics in report["red_team"].items() if measured_attacks(metrics)}
    if not stages:
        return None
    with style():
        figure = Figure(figsize=(WIDTH, 2.9 * len(stages)), layout="constrained")
        rows = figure.subplots(len(stages), 2, squeeze=False)
        for (left, right), (name, metrics) in zip(rows, stages.items(), strict=True):
            prefix = f"{words(name)}: " if len(stages) > 1 else ""
            left.set_title(f"{prefix}violations")
            _violations(left, measured_attacks(metrics))
            right.set_title("compared with the version before")
            _mitigation(right, metrics)
        return to_svg(figure, "red_team", "Violations by number of user messages, and their mitigation")


def measured_attacks(metrics: Report) -> dict[str, Report]:
    """Returns the versions with at least one judged answer."""
    return {
        version: figures
        for version, figures in (metrics.get("versions") or {}).items()
        if (figures.get("overall") or {}).get("violation_rate") is not None
    }


def mitigations(metrics: Report) -> Iterator[tuple[str, Report]]:
    """Yields each version but the first, and how it compares with the one before it."""
    names = list(measured_attacks(metrics))
    for before, version in pairwise(names):
        found = (metrics.get("mitigated") or {}).get(version, {}).get(before)
        if found:
            yield version, found


def _names(maps: Sequence[tuple[str, str, Report]], key: str) -> list[str]:
    """Returns the groups of all maps; prompts without the label come last."""
    names = dict.fromkeys(name for *_, figures in maps for name in figures.get(key) or {})
    return sorted(names, key=lambda name: name == "none")


def _heat_map(axes: Axes, figures: Report, *, categories: Sequence[str], attacks: Sequence[str]) -> None:
    for y, category in enumerate(categories):
        for x, attack in enumerate(attacks):
            cell = _cell(figures, category, attack)
            if cell.get("violation_rate") is None:
                continue
            rate, total = cell["violation_rate"], ALL in (category, attack)
            place = (x + 0.15 * (attack == ALL), y + 0.15 * (category == ALL))
            box = Rectangle(
                place, 0.96, 0.94, facecolor=COLOUR["red"], alpha=DARKEST * rate, edgecolor="none"
            )
            axes.add_patch(box)
            text = f"{rate:.1%}" if rate < 0.0995 else f"{rate:.0%}"
            where = (place[0] + 0.48, place[1] + 0.47)
            axes.text(*where, text, ha="right", va="center", weight="bold" if total else "normal")
            number = f"n={cell['answers']:,}"
            axes.text(
                where[0] + 0.03,
                where[1],
                number,
                ha="left",
                va="center",
                size="x-small",
                color=COLOUR["ink"],
                alpha=0.75,
            )
    axes.set_xlim(0, len(attacks) + 0.15)
    axes.set_ylim(len(categories) + 0.15, 0)
    shift = [0.48 + 0.15 * (name == ALL) for name in attacks]
    titles = [_attack_title(name) for name in attacks]
    axes.set_xticks([x + more for x, more in enumerate(shift)], titles)
    axes.set_yticks(
        [y + 0.47 + 0.15 * (name == ALL) for y, name in enumerate(categories)],
        [group_title("category", name) for name in categories],
    )
    axes.tick_params(labelcolor=COLOUR["ink"])
    axes.grid(visible=False)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _attack_title(name: str) -> str:
    return group_title("attack", name).replace(" ", "\n", 1)


def _cell(figures: Report, category: str, attack: str) -> Report:
    if category == ALL:
        found = figures.get("overall") if attack == ALL else (figures.get("attack") or {}).get(attack)
    elif attack == ALL:
        found = (figures.get("category") or {}).get(category)
    else:
        found = ((figures.get("category_by_attack") or {}).get(category) or {}).get(attack)
    return found or {}


def _violations(axes: Axes, versions: dict[str, Report]) -> None:
    for place, ((key, label), look) in enumerate(zip(GROUPS, point_styles(), strict=False)):
        points = [
            (x + (place - 1) * 0.2, group)
            for x, figures in enumerate(versions.values())
            if (group := _turns(figures, key)).get("violation_rate") is not None
        ]
        _with_intervals(axes, points, "violation_rate", ends=("low", "high"), label=label, **look)
    name_ticks(axes, list(versions), WIDTH / 2)
    axes.set_xlim(-0.6, len(versions) - 0.4)
    top = min(axes.get_ylim()[1] * 1.35, 1.3)
    axes.set_ylim(0, max(top, 0.01))
    axes.set_ylabel("share of answers")
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0 if top > 0.1 else 1))
    axes.legend(loc="upper right")


def _turns(figures: Report, key: str) -> Report:
    found = figures.get("overall") if key == "overall" else (figures.get("turns") or {}).get(key)
    return found or {}


def _mitigation(axes: Axes, metrics: Report) -> None:
    found = dict(mitigations(metrics))
    points = [(place, group) for place, group in enumerate(found.values())]
    mitigated = [point for point in points if point[1].get("mitigated_share") is not None]
    heights = [group["mitigated_share"] for _, group in mitigated]
    places = [place for place, _ in mitigated]
    axes.bar(places, heights, 0.6, color=COLOUR["green"], alpha=0.75, label="mitigated")
    for place, group in mitigated:
        label = f"{group['mitigated']:,} of {group['violated']:,}"
        axes.text(place, group["mitigated_share"] / 2, label, ha="center", size="small", color=COLOUR["ink"])
    _with_intervals(axes, mitigated, "mitigated_share", ends=("low", "high"), color=COLOUR["ink"], ms=0)
    new = [(place + 0.2, group) for place, group in points if group.get("new_share") is not None]
    look = {"color": COLOUR["red"], "marker": "^", "label": "new violations"}
    _with_intervals(axes, new, "new_share", ends=("new_low", "new_high"), **look)
    axes.axhline(
        MITIGATED, color=COLOUR["ink"], ls=(0, (4, 3)), lw=1, label=f"paper: {MITIGATED:.0%} mitigated"
    )
    axes.set_ylim(0, 1.5)
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1])
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.set_ylabel("share of prompts")
    if found:
        name_ticks(axes, list(found), WIDTH / 2)
        axes.set_xlim(-0.6, len(found) - 0.4)
    axes.legend(loc="upper right")


def _with_intervals(
    axes: Axes, points: Sequence[tuple[float, Report]], key: str, *, ends: tuple[str, str], **look: Any
) -> None:
    """Draws a figure of each group with its interval, which need not be symmetric."""
    if not points:
        return
    below = [
        max(group[key] - (group.get(ends[0]) or 0.0), 0.0) if _known(group, ends) else 0.0
        for _, group in points
    ]
    above = [max(group[ends[1]] - group[key], 0.0) if _known(group, ends) else 0.0 for _, group in points]
    values = [group[key] for _, group in points]
    axes.errorbar([x for x, _ in points], values, yerr=(below, above), ls="", lw=1.2, **look)


def _known(group: Report, ends: tuple[str, str]) -> bool:
    return all(group.get(end) is not None for end in ends)
