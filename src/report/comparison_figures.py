"""Figures of comparisons, diversity and reward shift (sections 3.4 and 5.1); None if not measured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from ..measures import REWARD_MODELS
from .comparison_tables import PAPER, RATERS
from .paper import WIN_RATE
from .style import COLOUR, WIDTH, line_styles, panels, style, to_svg, value_axis_only
from .words import words

Report = dict[str, Any]
Bar = tuple[str, Report]
"""Label and shares."""
OUTCOMES = {"win": COLOUR["green"], "tie": COLOUR["grey"], "loss": COLOUR["red"]}
LABELLED = 0.06  # smallest share whose number fits in its bar


def win_rates(report: Report) -> str | None:
    """Draws wins, ties and losses of each version against `sft`, a panel for each kind of prompts."""
    bars: dict[str, list[Bar]] = {}
    for version, others in report["comparisons"].items():
        for kind, found in others.get("sft", {}).get("kinds", {}).items():
            bars.setdefault(kind, []).extend(_bars(found, f"{words(version)}: "))
    figure = draw_shares({f"{kind} prompts, against sft": rows for kind, rows in bars.items()})
    if figure is None:
        return None
    return to_svg(figure, "win_rates", "Wins, ties and losses of each version against sft")


def comparison_figure(comparison: Report) -> Figure | None:
    """Draws one comparison of two models, a panel for each kind of prompts."""
    return draw_shares(
        {f"{kind} prompts, A against B": _bars(found) for kind, found in comparison["kinds"].items()}
    )


def _bars(found: Report, prefix: str = "") -> list[Bar]:
    return [(prefix + RATERS[rater], one) for rater, one in found["raters"].items() if one["pairs"]]


def draw_shares(bars: dict[str, list[Bar]]) -> Figure | None:
    """Draws stacked bars with 95% intervals by panel title, and the paper's figures below the first ones."""
    bars = {title: rows for title, rows in bars.items() if rows}
    if not bars:
        return None
    first = next(iter(bars))
    bars[first] = [*bars[first], (PAPER, WIN_RATE)]
    with style():
        sizes = [len(rows) for rows in bars.values()]
        height = 0.3 * sum(sizes) + 0.75 * len(sizes)
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        column = figure.subplots(len(sizes), 1, squeeze=False, height_ratios=sizes)[:, 0]
        for axes, (title, rows) in zip(column, bars.items(), strict=True):
            _stacked(axes, rows)
            axes.set_title(title)
        handles, labels = column[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper right", ncols=len(OUTCOMES))
    return figure


def _stacked(axes: Axes, rows: Sequence[Bar]) -> None:
    places = range(len(rows))
    left = [0.0] * len(rows)
    for name, colour in OUTCOMES.items():
        shares = [one[name] for _, one in rows]
        axes.barh(
            places,
            shares,
            0.66,
            left=left,
            color=colour,
            alpha=0.75,
            label={"loss": "losses"}.get(name, f"{name}s"),
        )
        for place, start, share in zip(places, left, shares, strict=True):
            if share >= LABELLED:
                axes.text(
                    start + share / 2, place, f"{share:.1%}", ha="center", va="center", color=COLOUR["ink"]
                )
        left = [start + share for start, share in zip(left, shares, strict=True)]
    for place, (_, one) in enumerate(rows):
        if one.get("win_low") is not None:
            _interval(axes, place - 0.27, (one["win_low"], one["win_high"]))
            _interval(axes, place + 0.27, (1 - one["loss_high"], 1 - one["loss_low"]))
    axes.set_yticks(places, [label for label, _ in rows])
    axes.tick_params(axis="y", labelcolor=COLOUR["ink"])
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    value_axis_only(axes, "x")


def _interval(axes: Axes, place: float, ends: tuple[float, float]) -> None:
    axes.plot(ends, (place, place), color=COLOUR["ink"], lw=1.2)


def reward_shift(report: Report) -> str | None:
    """Draws the distribution of the scores of each version's answers by each reward model (figure 20)."""
    measured = {name: found for name in REWARD_MODELS if (found := _histograms(report, f"{name}_score"))}
    if not measured:
        return None
    with style():
        figure, row = panels(len(measured), 2.7)
        for axes, (name, histograms) in zip(row, measured.items(), strict=True):
            for (version, shares), line in zip(histograms.items(), line_styles(), strict=False):
                edges = [place / len(shares) for place in range(len(shares) + 1)]
                axes.stairs(shares, edges, label=words(version), lw=1.4, **line)
            axes.set_title(
                f"{RATERS[name]} scores, {'ordinary' if name == 'helpfulness' else 'harmful'} prompts"
            )
            axes.set_xlabel("score after the sigmoid")
            axes.set_xlim(0, 1)
            axes.set_ylim(bottom=0)
            axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        row[0].set_ylabel("share of answers")
        handles, labels = row[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper left", ncols=5)
        return to_svg(figure, "reward_shift", "Distribution of reward-model scores of each version")


def _histograms(report: Report, key: str) -> dict[str, list[float]]:
    """Returns the histograms of all versions; none if there is one version only."""
    found = {
        version: scores[key]["histogram"]
        for version, scores in report["distributions"].items()
        if (scores.get(key) or {}).get("histogram")
    }
    return found if len(found) > 1 else {}


def diversity(report: Report) -> str | None:
    """Draws self-BLEU by temperature of each version, for factual and for creative prompts (figure 21)."""
    versions = report["diversity"]
    if not versions:
        return None
    kinds = list(next(iter(versions.values())))
    with style():
        figure, row = panels(len(kinds), 2.9)
        for axes, kind in zip(row, kinds, strict=True):
            for (version, found), line in zip(versions.items(), line_styles(), strict=False):
                names = [name for name in found[kind] if not name.endswith("_se")]
                points = [
                    (float(name), found[kind][name], found[kind].get(f"{name}_se") or 0.0) for name in names
                ]
                temperatures, values, errors = zip(*points, strict=True)
                axes.errorbar(temperatures, values, yerr=errors, label=words(version), marker=".", **line)
            axes.set_title(f"{kind} prompts")
            axes.set_xlabel("temperature")
            axes.set_ylim(0, 1.02)
        row[0].set_ylabel("self-BLEU (1: all answers equal)")
        handles, labels = row[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper left", ncols=5)
        return to_svg(figure, "diversity", "Self-BLEU of the answers by temperature of each version")
