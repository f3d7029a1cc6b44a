"""Shows a summary of a corpus in the terminal."""

from __future__ import annotations

from typing import Any

from ..console import aligned_table, say, show


def show_summary(counts: dict[str, Any]) -> None:
    """Prints a corpus's counts (see `writing.write_corpus`): sources, lengths, skipped documents."""
    train = counts["train"]
    weighted = sum(source["weight"] * source["tokens"] for source in train["sources"])
    table = aligned_table("source", "documents", "tokens", "bytes/token", "weight", "share")
    for source in train["sources"]:
        share = f"{source['weight'] * source['tokens'] / weighted:.1%}"
        table.add_row(source["path"], *_figures(source), f"{source['weight']:g}", share)
    table.add_row("total", *_figures(train), "", "", style="bold")
    table.add_row("held out", *_figures(counts["validation"]), "", "")
    show(table)
    lengths = aligned_table("tokens per document", "training documents")
    for longest, documents in ((longest, count) for longest, count in train["lengths"].items() if count):
        lengths.add_row(f"up to {int(longest):,}", f"{documents:,}")
    show(lengths)
    skipped = sum(counts["skipped"].values())
    say(
        f"skipped: {counts['duplicates']:,} duplicates, {skipped:,} unusable documents, "
        f"{counts['bad_rows']:,} bad rows"
    )


def _figures(part: dict[str, Any]) -> list[str]:
    rate = f"{part['bytes'] / part['tokens']:.2f}" if part["tokens"] else "–"
    return [f"{part['documents']:,}", f"{part['tokens']:,}", rate]
