"""Shows the figures of a search in the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..console import aligned_table, say, show


def show_summary(result: Mapping[str, Any]) -> None:
    """Prints how much was searched, and the overlap of each benchmark (see docs/contamination.md)."""
    for name, counts in result["searched"].items():
        if counts is not None:
            say(f"searched {name}: {counts['tokens']:,} tokens in {counts['documents']:,} documents")
    table = aligned_table("benchmark", "samples", "contaminated", "not clean", "dirty", "score affected")
    for name, figures in result["benchmarks"].items():
        base = figures["spans"]["10"]
        sizes = (f"{base['subsets'][subset]['samples']:,}" for subset in ("not_clean", "dirty"))
        table.add_row(
            name, f"{figures['samples']:,}", f"{base['contaminated']:.1%}", *sizes, affected_text(figures)
        )
    show(table)
    if short := sum(figures["too_short"] for figures in result["benchmarks"].values()):
        say(f"samples of at most 10 tokens, which can't match and count as clean: {short:,}")


def affected_text(figures: Mapping[str, Any]) -> str:
    """Returns whether the scores are affected, with the largest minimum span for which they are."""
    if figures["spans"]["10"]["affected"] is None:
        return "no scores"
    longest = figures["affected_up_to"]
    return "no" if longest is None else f"yes, up to spans of {longest}"
