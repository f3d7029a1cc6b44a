"""Tables of wins, ties and losses (section 3.4), for the page, the terminal and `llamita compare`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .paper import WIN_RATE
from .words import MISSING, count, figure, words

Report = dict[str, Any]
Table = dict[str, Any]
"""`{"head": column titles, "rows": texts of the cells}`"""

RATERS = {
    "helpfulness": "helpfulness RM",
    "safety": "safety RM",
    "judge": "third RM",
    "gold": "ground truth",
    "endpoint": "judge model",
}
PAPER = "paper: 70B, ChatGPT"
"""Row of the paper's figures: the 70B model against ChatGPT, by people."""


def shares_table(comparisons: dict[str, Report]) -> Table | None:
    """Returns wins, ties and losses of each comparison, `{title: {"kinds": …}}`, and the paper's."""
    rows = [
        [
            f"{title}, {kind}: {RATERS[rater]}".removeprefix(", "),
            *(_with_interval(shares, name) for name in WIN_RATE),
            figure(shares, "net", percent=True, signed=True),
            count(shares["pairs"]),
            count(shares["undecided"]),
        ]
        for title, comparison in comparisons.items()
        for kind, found in comparison["kinds"].items()
        for rater, shares in found["raters"].items()
    ]
    if not rows:
        return None
    paper = [f"{100 * share:.1f}" for share in WIN_RATE.values()]
    net = f"{100 * (WIN_RATE['win'] - WIN_RATE['loss']):+.1f}"
    rows.append([PAPER, *paper, net, MISSING, MISSING])
    head = ["", "wins %", "ties %", "losses %", "net %", "pairs", "undecided"]
    return {"head": head, "rows": rows}


def agreement_table(comparisons: dict[str, Report]) -> Table | None:
    """Returns Gwet's AC2 of all raters and of each two of them."""
    rows = []
    for title, comparison in comparisons.items():
        for kind, found in comparison["kinds"].items():
            name = f"{title}, {kind}".removeprefix(", ")
            agreement = found["agreement"]
            if len(found["raters"]) > 2:
                rows.append([f"{name}: all raters", figure(agreement, "ac2")])
            rows += [
                [f"{name}: {RATERS[first]} and {RATERS[second]}", _plain(value)]
                for first, others in agreement["between"].items()
                for second, value in others.items()
            ]
    return {"head": ["agreement of the raters", "AC2"], "rows": rows} if rows else None


def judge_table(comparisons: dict[str, Report]) -> Table | None:
    """Returns how consistent the judge model is, and how many of its verdicts are missing."""
    found = {title: one["endpoint"] for title, one in comparisons.items() if one["endpoint"] is not None}
    if not found:
        return None
    percentages = (
        ("inconsistent", "different verdicts in the two orders, %"),
        ("shown_first", "verdicts for the answer shown first, %"),
        ("shown_second", "verdicts for the answer shown second, %"),
    )
    counts = (
        ("pairs", "pairs"),
        ("identical", "equal answers, a tie without a question"),
        ("unreadable", "pairs with a reply without a verdict"),
        ("rejected", "pairs that the endpoint rejects"),
    )
    rows = [
        *([name, *(figure(one, key, percent=True) for one in found.values())] for key, name in percentages),
        *([name, *(count(one[key]) for one in found.values())] for key, name in counts),
    ]
    return {"head": ["judge model", *found], "rows": rows}


def versions_compared(report: Report) -> dict[str, Report]:
    """Returns the comparisons of versions by title, such as `v2 ppo against sft`."""
    return {
        f"{words(version)} against {words(other)}": comparison
        for version, others in report["comparisons"].items()
        for other, comparison in others.items()
    }


def win_rates_table(report: Report) -> Table | None:
    return shares_table(versions_compared(report))


def raters_table(report: Report) -> Table | None:
    return agreement_table(versions_compared(report))


def judge_model_table(report: Report) -> Table | None:
    return judge_table(versions_compared(report))


def win_rate_lines(report: Report) -> Iterator[str]:
    """Yields one line for each comparison with `sft`, for the terminal."""
    for version, others in report["comparisons"].items():
        for kind, found in others.get("sft", {}).get("kinds", {}).items():
            shares = ", ".join(
                f"{RATERS[rater]} {_percentages(one)}"
                for rater, one in found["raters"].items()
                if one["pairs"]
            )
            if shares:
                yield f"{words(version)} against sft, {kind} prompts (win/tie/loss %): {shares}"


def _percentages(shares: Report) -> str:
    return "/".join(f"{100 * shares[name]:.0f}" for name in WIN_RATE)


def _with_interval(shares: Report, name: str) -> str:
    """Formats a share with its interval in percent, as `36.0 (33–39)`."""
    if shares[name] is None:
        return MISSING
    low, high = shares[f"{name}_low"], shares[f"{name}_high"]
    return f"{100 * shares[name]:.1f} ({100 * low:.0f}–{100 * high:.0f})"


def _plain(value: float | None) -> str:
    return MISSING if value is None else f"{value:.3f}"
