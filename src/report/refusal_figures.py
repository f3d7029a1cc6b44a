"""Figure of false refusals (section 4.2.3, figure 33): two ways to recognize them, for each version."""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from .measured import measured_versions
from .paper import FALSE_REFUSALS
from .style import COLOUR, WIDTH, name_ticks, panels, style, to_svg

Report = dict[str, Any]

# title, measure by rules, measure by the classifier
PANELS = (
    ("ordinary prompts", "false_refusal_rate", "classifier_false_refusal_rate"),
    ("borderline prompts", "false_refusal_borderline", "classifier_refusal_borderline"),
)
PAPER = f"paper: about {FALSE_REFUSALS:.2%}"


def false_refusals(report: Report) -> str | None:
    """Draws false refusals of each version by rules and by the refusal classifier, with standard errors."""
    versions = measured_versions(report)
    measured = [
        panel for panel in PANELS if any(figures.get(panel[2]) is not None for figures in versions.values())
    ]
    if not measured:
        return None  # without the classifier there is nothing to compare
    rules = "rules of the ground truth" if _gold(versions) else "phrases of refusals"
    with style():
        figure, row = panels(len(measured), 2.9)
        for axes, (title, by_rules, by_classifier) in zip(row, measured, strict=True):
            _bars(axes, versions, by_rules, shift=-0.2, label=rules, color=COLOUR["grey"])
            _bars(axes, versions, by_classifier, shift=0.2, label="refusal classifier", color=COLOUR["blue"])
            if by_rules == "false_refusal_rate":
                axes.axhline(FALSE_REFUSALS, color=COLOUR["ink"], ls=(0, (4, 3)), lw=1, label=PAPER)
            axes.set_title(title)
            name_ticks(axes, list(versions), WIDTH / len(measured))
            axes.set_xlim(-0.6, len(versions) - 0.4)
            axes.set_ylabel("share refused")
            top = max(axes.get_ylim()[1] * 1.45, 0.01)
            axes.set_ylim(0, top)
            axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0 if top > 0.1 else 1))
            axes.legend(loc="upper right")
        return to_svg(figure, "false_refusals", "False refusals of each version by rules and by a classifier")


def _gold(versions: Report) -> bool:
    return any(figures.get("gold_helpfulness") is not None for figures in versions.values())


def _bars(axes: Axes, versions: Report, key: str, *, shift: float, label: str, color: str) -> None:
    points = [
        (place + shift, figures[key], figures.get(f"{key}_se") or 0.0)
        for place, figures in enumerate(versions.values())
        if figures.get(key) is not None
    ]
    if not points:
        return
    places, values, errors = zip(*points, strict=True)
    axes.bar(places, values, 0.38, color=color, label=label)
    axes.errorbar(places, values, yerr=errors, color=COLOUR["ink"], lw=1, ls="")
    for place, value, error in points:
        text = f"{value:.1%}" if value < 0.1 else f"{value:.0%}"
        axes.text(place, value + error, text, ha="center", va="bottom", color=COLOUR["ink"], size="small")
