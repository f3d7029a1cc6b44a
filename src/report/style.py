"""One look for every figure: the palette, and matplotlib figures as SVG that follow light or dark mode."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from itertools import cycle
from typing import Any, Literal

import matplotlib

matplotlib.use("Agg")

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .words import words

PALETTE = {
    # name: (light, dark). Figures are drawn with the light colour, which then becomes var(--name) in the SVG.
    "page": ("#fcfcfa", "#15171a"),
    "ink": ("#1d2126", "#e6e7e9"),
    "soft": ("#666d76", "#9aa1aa"),
    "line": ("#dddfe2", "#33383e"),
    "blue": ("#2c6cb0", "#6ea8e6"),
    "orange": ("#c5701a", "#eba35a"),
    "green": ("#2a8a6e", "#5cc3a4"),
    "red": ("#b5403c", "#ee8079"),
    "grey": ("#8c939c", "#99a1ab"),
}
COLOUR = {name: light for name, (light, _) in PALETTE.items()}

HELPFULNESS, SAFETY = COLOUR["blue"], COLOUR["orange"]
GOLD = COLOUR["ink"]

MEMBERS = (COLOUR["blue"], COLOUR["orange"], COLOUR["green"], COLOUR["red"], COLOUR["grey"])
"""Colours of stages or models that share a panel."""
DASHES = ("-", (0, (4, 2)), (0, (1.2, 1.2)))

WIDTH = 8.6
"""Inches of a figure that fills the text column."""
LETTER = 0.072
"""Inches of a letter on average."""

_RC = {
    "svg.fonttype": "none",  # text stays text: it takes the page's font and can be selected
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 9,
    "axes.edgecolor": COLOUR["line"],
    "axes.labelcolor": COLOUR["soft"],
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": COLOUR["line"],
    "grid.linewidth": 0.6,
    "text.color": COLOUR["ink"],
    "xtick.color": COLOUR["line"],
    "ytick.color": COLOUR["line"],
    "xtick.labelcolor": COLOUR["soft"],
    "ytick.labelcolor": COLOUR["soft"],
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "legend.handlelength": 1.4,
    "lines.linewidth": 1.6,
    "lines.markersize": 5,
    "errorbar.capsize": 0,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
}


def style() -> AbstractContextManager[None]:
    """Context in which a figure must be made: `with style(): …`."""
    return matplotlib.rc_context(_RC)


def panels(count: int, height: float) -> tuple[Figure, list[Axes]]:
    """A row of `count` equal panels that fill the column, `height` inches high."""
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    axes = figure.subplots(1, count, squeeze=False)[0]
    return figure, list(axes)


def value_axis_only(axes: Axes, axis: Literal["x", "y"]) -> None:
    """Grid lines along the axis that carries values; the other axis names things and needs none."""
    axes.grid(visible=False)
    axes.grid(visible=True, axis=axis)
    axes.spines["left" if axis == "y" else "bottom"].set_visible(False)


def line_styles() -> Iterator[dict[str, Any]]:
    """Of lines that share a panel: all colours, then all again dashed and dotted."""
    return ({"color": colour, "ls": dashes} for dashes in cycle(DASHES) for colour in MEMBERS)


def name_ticks(axes: Axes, names: Sequence[str], width: float) -> None:
    """Names along the x axis of a panel `width` inches wide: in lines, or slanted where they would touch."""
    labels = ["\n".join(words(part) for part in name.split("/")) for name in names]
    needed = sum(max(map(len, label.split("\n"))) + 2 for label in labels) * LETTER
    if needed > width:
        axes.set_xticks(range(len(names)), [words(name) for name in names])
        axes.tick_params(axis="x", labelrotation=40)
        for label in axes.get_xticklabels():
            label.set(ha="right", rotation_mode="anchor")
    else:
        axes.set_xticks(range(len(names)), labels)
    axes.set_xlim(-0.4, len(names) - 0.6)
    value_axis_only(axes, "y")


def legend_beside(axes: Axes) -> None:
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))


def to_svg(figure: Figure, name: str, description: str) -> str:
    """The figure as inline SVG: colours as CSS variables, ids unique to `name`, the same bytes each time."""
    buffer = io.StringIO()
    with style(), matplotlib.rc_context({"svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"\s*<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', svg)
    svg = re.sub(r'xlink:href="#([^"]+)"', rf'xlink:href="#{name}-\1"', svg)
    svg = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", svg)
    svg = re.sub(r"font-family: [^;\"]*", "font-family: var(--font)", svg)
    for colour, light in COLOUR.items():
        svg = svg.replace(light, f"var(--{colour})")
    svg = re.sub(r'(<svg [^>]*?)width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg [^>]*?)height="[^"]*"', r"\1", svg, count=1)
    label = description.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
    return svg.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1).rstrip()
