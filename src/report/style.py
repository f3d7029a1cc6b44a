"""Style of all figures: the palette, and matplotlib figures as SVG that follow light and dark mode."""

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
    # name: (light, dark). Figures are drawn with the light colour, which `to_svg` replaces by var(--name).
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
"""Colours of the stages or models in one panel."""
MARKERS = ("o", "s", "D", "^", "v")
"""Markers that go with the colours, so that colours are not needed to distinguish points."""
DASHES = ("-", (0, (4, 2)), (0, (1.2, 1.2)))

WIDTH = 8.6
"""Width of a figure in inches; it fills the text column."""
LETTER = 0.072
"""Average width of a letter in inches."""

_RC = {
    "svg.fonttype": "none",  # text remains text: it uses the page's font and can be selected
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
    """Returns the context in which figures must be created: `with style(): …`."""
    return matplotlib.rc_context(_RC)


def panels(count: int, height: float) -> tuple[Figure, list[Axes]]:
    """Creates a row of `count` equal panels that fill the text column, `height` inches high."""
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    axes = figure.subplots(1, count, squeeze=False)[0]
    return figure, list(axes)


def value_axis_only(axes: Axes, axis: Literal["x", "y"]) -> None:
    """Draws grid lines for the axis with values only; the other axis has names."""
    axes.grid(visible=False)
    axes.grid(visible=True, axis=axis)
    axes.spines["left" if axis == "y" else "bottom"].set_visible(False)


def line_styles() -> Iterator[dict[str, Any]]:
    """Yields the styles of the lines in one panel: all colours solid, then dashed, then dotted."""
    return ({"color": colour, "ls": dashes} for dashes in cycle(DASHES) for colour in MEMBERS)


def point_styles() -> Iterator[dict[str, Any]]:
    """Yields the styles of points in one panel: a colour and a marker each, filled first, then hollow."""
    return (
        {"color": colour, "marker": marker, "mfc": colour if filled else COLOUR["page"]}
        for filled in cycle((True, False))
        for colour, marker in zip(MEMBERS, MARKERS, strict=True)
    )


def name_ticks(axes: Axes, names: Sequence[str], width: float) -> None:
    """Labels the x axis of a panel `width` inches wide: on two lines, or rotated if names would overlap."""
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
    """Returns the figure as inline SVG with CSS variables for colours and ids prefixed by `name`."""
    buffer = io.StringIO()
    with style(), matplotlib.rc_context({"svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"\s*<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' id="image[^"]*"', "", svg)  # hashes of the pixels: equal images would share an id
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
