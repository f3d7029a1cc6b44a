"""Figures of safety training (section 4.2): the shift of scores, and the share of safety data."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes

from .style import COLOUR, HELPFULNESS, SAFETY, WIDTH, name_ticks, panels, style, to_svg
from .words import words

Report = dict[str, Any]

# key of the scores, title, colour
SCORES = (
    ("safety", "safety RM score, harmful prompts", SAFETY),
    ("helpfulness", "helpfulness RM score, ordinary prompts", HELPFULNESS),
)
CELL = 0.005  # side of the squares in which points are merged, of scores from 0 to 1
_SHARE = re.compile(r"_(\d+)$")


def score_shift(report: Report) -> str | None:
    """Draws a point per prompt: its answer's score before RLHF against after it, beside the diagonal."""
    shift = report["score_shift"]
    measured = [score for score in SCORES if shift[score[0]]]
    if not measured:
        return None
    with style():
        figure, row = panels(max(len(measured), 2), 4.3)
        for axes in row[len(measured) :]:
            axes.remove()
        for axes, (key, title, colour) in zip(row, measured, strict=False):
            total = len(shift[key])
            axes.plot((0, 1), (0, 1), color=COLOUR["soft"], ls=(0, (4, 3)), lw=1)
            before, after, numbers = _coinciding(shift[key])
            unit = min(14.0, 560 / max(numbers))  # area of one answer, so that no point covers the title
            areas = [unit * number for number in numbers]
            axes.scatter(before, after, s=areas, color=colour, alpha=0.4, lw=0, clip_on=False)
            higher = sum(y > x for x, y in shift[key]) / total
            lower = sum(y < x for x, y in shift[key]) / total
            axes.set_title(f"{title}\nhigher: {higher:.0%}, lower: {lower:.0%} of {total} answers")
            axes.set_xlabel(f"score of {words(shift['before'])}")
            axes.set_ylabel(f"score of {words(shift['after'])}")
            axes.set(xlim=(-0.05, 1.05), ylim=(-0.05, 1.05), aspect="equal")
        return to_svg(figure, "score_shift", "Reward-model scores of answers before and after RLHF")


def _coinciding(points: Sequence[Sequence[float]]) -> tuple[list[float], list[float], list[int]]:
    """Merges points that would hide each other: x and y of the first one in each cell, and their numbers."""
    cells: dict[tuple[int, int], list[Sequence[float]]] = {}
    for x, y in points:
        cells.setdefault((round(x / CELL), round(y / CELL)), []).append((x, y))
    firsts = [cell[0] for cell in cells.values()]
    return [x for x, _ in firsts], [y for _, y in firsts], [len(cell) for cell in cells.values()]


def data_scaling(report: Report) -> str | None:
    """Draws mean and left tail of both scores by version; a series of safety data has shares as names."""
    versions = {
        name: scores
        for name, scores in report["distributions"].items()
        if any(_mean(scores, key) is not None for key, *_ in SCORES)
    }
    if len(versions) < 2:
        return None
    series = scaling_series(list(versions))
    measured = [
        score for score in SCORES if any(_mean(versions[name], score[0]) is not None for name in series)
    ]
    with style():
        figure, row = panels(len(measured), 2.9)
        for axes, (key, title, colour) in zip(row, measured, strict=True):
            for part, label, line in (
                ("mean", "mean", {"marker": "o"}),
                ("left_tail", "left tail: mean of the lowest 10%", {"marker": "v", "ls": (0, (4, 2))}),
            ):
                _line(
                    axes,
                    [versions[name].get(f"{key}_score") for name in series],
                    part,
                    label=label,
                    color=colour,
                    **line,
                )
            name_ticks(axes, list(series.values()), WIDTH / len(measured))
            axes.set_title(title)
            axes.set_ylim(0, 1.05)
            axes.set_ylabel("score, 0 to 1")
            if series.keys() != set(series.values()):
                axes.set_xlabel("share of the safety data")
            axes.legend(loc="best")
        return to_svg(figure, "scaling", "Mean and left tail of reward-model scores by version")


def scaling_series(names: list[str]) -> dict[str, str]:
    """Returns the versions to compare and their titles on the axis.

    If three or more names end with a number, such as `safety_25`, these are a series of shares of the safety
    data in percent: they are ordered by it, and others are left out.
    """
    shares = {name: int(found[1]) for name in names if (found := _SHARE.search(name))}
    if len(shares) < 3:
        return {name: name for name in names}
    return {name: f"{shares[name]}%" for name in sorted(shares, key=lambda name: shares[name])}


def _mean(scores: Report, key: str) -> float | None:
    found = scores.get(f"{key}_score") or {}
    return found.get("mean")


def _line(axes: Axes, scores: list[Report | None], part: str, **line: Any) -> None:
    points = [
        (place, found[part], found.get(f"{part}_se") or 0.0)
        for place, found in enumerate(scores)
        if found and found.get(part) is not None
    ]
    if points:
        places, values, errors = zip(*points, strict=True)
        axes.errorbar(places, values, yerr=errors, **line)
