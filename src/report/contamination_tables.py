"""Tables of contamination (section A.6), for the page and the terminal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .words import MISSING, count, figure, words

Report = dict[str, Any]
Table = dict[str, Any]
"""`{"head": column titles, "rows": texts of the cells}`"""

SUBSETS = {"clean": "clean", "not_clean": "not clean", "not_dirty": "not dirty", "dirty": "dirty"}


def searched_benchmarks(report: Report) -> Iterator[tuple[str, Report]]:
    """Yields title and figures of each benchmark; titles have the name of the stage if there are several."""
    stages = report["contamination"]
    for stage, metrics in stages.items():
        prefix = f"{words(stage)}: " if len(stages) > 1 else ""
        for name, figures in (metrics.get("benchmarks") or {}).items():
            yield prefix + name, figures


def shown_span(figures: Report) -> str:
    """Returns the minimum span at which subsets are shown: the largest with an effect on scores, or 10."""
    return str(figures["affected_up_to"] or 10)


def overlap_table(report: Report) -> Table | None:
    """Returns the mean share of contaminated tokens by minimum span, and the number of dirty samples."""
    rows: list[list[str]] = []
    spans: list[str] = []
    for name, figures in searched_benchmarks(report):
        spans = list(figures["spans"])
        dirty = figures["spans"][spans[0]]["subsets"]["dirty"]["samples"]
        shares = (figure(one, "contaminated", percent=True) for one in figures["spans"].values())
        rows.append([name, count(figures["samples"]), count(dirty), *shares])
    titles = [f"spans ≥ {span}" for span in spans]
    return {"head": ["contaminated tokens, %", "samples", "dirty", *titles], "rows": rows} if rows else None


def subsets_table(report: Report) -> Table | None:
    """Returns the scores of the four subsets of each benchmark, in the columns of table 51."""
    rows = []
    for name, figures in searched_benchmarks(report):
        span = shown_span(figures)
        if figures["spans"][span]["affected"] is None:
            continue
        verdict = "affected" if figures["spans"][span]["affected"] else "not affected"
        for key, subset in figures["spans"][span]["subsets"].items():
            z = MISSING if subset["z"] is None else f"{subset['z']:+.2f}"
            share = figure(subset, "contaminated", percent=True)
            scores = (figure(subset, "score"), figure(subset, "expected"))
            title = f"{name}, spans ≥ {span} ({verdict})"
            rows.append([title, SUBSETS[key], share, count(subset["samples"]), *scores, z])
    head = ["", "subset", "contaminated %", "samples", "score", "expected", "Z"]
    return {"head": head, "rows": rows} if rows else None
