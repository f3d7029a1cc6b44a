"""Figures of Ghost Attention: instruction following by turn, and attention to the instruction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.ticker import PercentFormatter

from ..measures import ATTENTION_SERIES, AVERAGED_TURNS
from .measured import measured_retention, measured_turns, measured_version_turns
from .regressions import ERRORS
from .style import (
    COLOUR,
    WIDTH,
    legend_beside,
    name_ticks,
    panels,
    point_styles,
    style,
    to_svg,
    value_axis_only,
)
from .words import SERIES_TITLES, words

Report = dict[str, Any]

AVERAGE = f"1-{AVERAGED_TURNS}"
"""Key of the mean retention of a version."""
COLOURS = {"with": COLOUR["blue"], "without": COLOUR["red"], "unseen": COLOUR["green"]}


def gatt_retention(report: Report) -> str | None:
    """Draws the share of dialogues whose answer follows the instruction by turn, with and without GAtt."""
    turns = measured_turns(report)
    with style():
        figure, (axes,) = panels(1, 2.9)
        for name, colour in COLOURS.items():
            label, counts = SERIES_TITLES[name], report["gatt_dialogues"][name]
            if counts:
                label += f"\n({counts['started']:,} dialogues)"
            implicit, explicit = report["gatt_retention"][name], report["gatt_retention_explicit"][name]
            _turn_line(axes, turns, implicit, color=colour, marker="o", label=label)
            _turn_line(axes, turns, explicit, color=colour, lw=1, ls=(0, (1.5, 2)))
        if not axes.get_legend_handles_labels()[0]:
            return None
        axes.set_ylim(0, 1.05)
        axes.set_ylabel("instruction following")
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        _turn_axis(axes, turns)
        legend_beside(axes)
        return to_svg(figure, "retention", "Instruction following by turn, with and without Ghost Attention")


def version_retention(report: Report) -> str | None:
    """Draws instruction following of each version by turn, and its paired difference to sft."""
    versions = measured_retention(report)
    if not versions:
        return None
    turns = measured_version_turns(versions)
    differences = report["version_retention_differences"]
    with style():
        figure, (left, right) = panels(2, 2.9)
        for (name, shares), look in zip(versions.items(), point_styles(), strict=False):
            _turn_line(left, turns, shares, label=words(name), ms=4, **look)
            difference = differences.get(name, {}).get(AVERAGE)
            if difference is not None:
                error = 100 * ERRORS * (differences[name].get(f"{AVERAGE}_se") or 0.0)
                right.errorbar(list(versions).index(name), 100 * difference, yerr=error, **look)
        left.set_title("instruction following")
        left.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        left.set_ylim(top=1.01)
        _turn_axis(left, turns)
        left.legend(loc="lower left")
        right.axhline(0, color=COLOUR["soft"], lw=1)
        right.set_title("mean of turns 1 to 10, minus sft")
        right.set_ylabel("points, with two standard errors")
        name_ticks(right, list(versions), WIDTH / 2)
        return to_svg(figure, "version_retention", "Instruction following of each version by turn")


def gatt_attention(report: Report) -> str | None:
    """Draws the maximum attention within a dialogue for both models, and to the instruction by turn."""
    attention = report["gatt_attention"]
    measured = {name: attention[name] for name in ATTENTION_SERIES if attention[name]["map"]}
    if not measured:
        return None
    turns = measured_turns(report)
    with style():
        figure, axes = panels(len(measured) + 1, 2.9)
        for panel, (name, series) in zip(axes, measured.items(), strict=False):
            _map(panel, series["map"], series["instruction"])
            panel.set_title(SERIES_TITLES[name])
        axes[0].set_ylabel("attending token (query)")
        for name, series in measured.items():
            label = SERIES_TITLES[name]
            _turn_line(axes[-1], turns, series["by_turn"], color=COLOURS[name], marker="o", label=label)
        axes[-1].set_title(f"attention to the instruction{_sample_size(measured)}")
        axes[-1].set_ylabel("maximum attention weight")
        axes[-1].set_ylim(bottom=0)
        _turn_axis(axes[-1], turns)
        axes[-1].legend(loc="best")
        return to_svg(
            figure, "attention", "Maximum attention within a dialogue, and to its instruction by turn"
        )


def _map(axes: Axes, table: list[list[float]], instruction: list[float]) -> None:
    """Draws stronger attention darker, and the instruction's tokens as an orange bar below the map."""
    shades = LinearSegmentedColormap.from_list("shades", [f"{COLOUR['blue']}00", COLOUR["blue"]])
    axes.imshow(table, cmap=shades, vmin=0, vmax=1, extent=(0, 1, 1, 0), interpolation="nearest")
    axes.plot(instruction, (1, 1), color=COLOUR["orange"], lw=4, solid_capstyle="butt", clip_on=False)
    axes.set_xlabel("attended token (key)")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(visible=False)


def _sample_size(measured: dict[str, Report]) -> str:
    """Returns ` (n = 8)`, the dialogues that the first model read; nothing if it is unknown."""
    counts = next(iter(measured.values())).get("dialogues") or {}
    return f" (n = {max(counts.values())})" if counts else ""


def _turn_axis(axes: Axes, turns: Sequence[str]) -> None:
    axes.set_xticks(range(len(turns)), turns)
    axes.set_xlabel("turn of the dialogue")
    value_axis_only(axes, "y")


def _turn_line(axes: Axes, turns: Sequence[str], group: dict[str, float | None], **line: Any) -> None:
    points = [
        (place, value, group.get(f"{turn}_se") or 0.0)
        for place, turn in enumerate(turns)
        if (value := group.get(turn)) is not None
    ]
    if points:
        places, values, errors = zip(*points, strict=True)
        axes.errorbar(places, values, yerr=errors, **line)
