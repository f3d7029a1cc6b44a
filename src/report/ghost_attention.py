"""The figures of Ghost Attention: how long an instruction is kept, and how strongly it is attended to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.ticker import PercentFormatter

from ..measures import ATTENTION_SERIES
from .measured import asked_turns
from .style import COLOUR, legend_beside, panels, style, to_svg, value_axis_only

Report = dict[str, Any]

SERIES = {"with": ("with GAtt", COLOUR["blue"]), "without": ("without GAtt", COLOUR["red"])}


def gatt_retention(report: Report) -> str | None:
    """Share of dialogues whose answer at a turn keeps the instruction, with and without Ghost Attention."""
    turns = asked_turns(report)
    with style():
        figure, (axes,) = panels(1, 2.9)
        series = SERIES | {"unseen": ("with GAtt, values never trained", COLOUR["green"])}
        for name, (label, colour) in series.items():
            implicit, explicit = report["gatt_retention"][name], report["gatt_retention_explicit"][name]
            _retention_line(axes, turns, implicit, color=colour, marker="o", label=label)
            _retention_line(axes, turns, explicit, color=colour, lw=1, ls=(0, (1.5, 2)))
        if not axes.get_legend_handles_labels()[0]:
            return None
        axes.set_ylim(0, 1.05)
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        _turn_axis(axes, turns)
        legend_beside(axes)
        return to_svg(figure, "retention", "Instruction kept by turn, with and without Ghost Attention")


def gatt_attention(report: Report) -> str | None:
    """The strongest attention in a dialogue by both models, and that to the instruction by turn."""
    measured = {name: found for name in ATTENTION_SERIES if (found := report["gatt_attention"][name])["map"]}
    if not measured:
        return None
    turns = asked_turns(report)
    with style():
        figure, axes = panels(len(measured) + 1, 2.9)
        for place, (name, found) in zip(axes, measured.items(), strict=False):
            _map(place, found["map"], found["instruction"])
            place.set_title(SERIES[name][0])
        axes[0].set_ylabel("token that attends")
        for name, found in measured.items():
            label, colour = SERIES[name]
            _retention_line(axes[-1], turns, found["by_turn"], color=colour, marker="o", label=label)
        axes[-1].set_title("attention to the instruction")
        axes[-1].set_ylim(bottom=0)
        _turn_axis(axes[-1], turns)
        axes[-1].legend(loc="best")
        return to_svg(
            figure, "attention", "Strongest attention in a dialogue, and to its instruction by turn"
        )


def _map(axes: Axes, table: list[list[float]], instruction: list[float]) -> None:
    """Darker where attention is stronger; the instruction's tokens are marked at the bottom."""
    shades = LinearSegmentedColormap.from_list("shades", [f"{COLOUR['blue']}00", COLOUR["blue"]])
    axes.imshow(table, cmap=shades, vmin=0, vmax=1, extent=(0, 1, 1, 0), interpolation="nearest")
    axes.plot(instruction, (1, 1), color=COLOUR["orange"], lw=4, solid_capstyle="butt", clip_on=False)
    axes.set_xlabel("token attended to")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(visible=False)


def _turn_axis(axes: Axes, turns: Sequence[str]) -> None:
    axes.set_xticks(range(len(turns)), turns)
    axes.set_xlabel("turn of the dialogue")
    value_axis_only(axes, "y")


def _retention_line(axes: Axes, turns: Sequence[str], group: dict[str, float | None], **look: Any) -> None:
    points = [
        (place, value, group[f"{turn}_se"] or 0.0)
        for place, turn in enumerate(turns)
        if (value := group[turn]) is not None
    ]
    if points:
        places, values, errors = zip(*points, strict=True)
        axes.errorbar(places, values, yerr=errors, **look)
