"""What a corpus is made of, for the terminal."""

from __future__ import annotations

from typing import Any

from ..console import aligned_table, say, show


def show_summary(counts: dict[str, Any]) -> None:
    """Prints a corpus's counts (see `writing.write_corpus`): sources, lengths, what was left out."""
    train = counts["train"]
    weighted = sum(source["weight"] * source["tokens"] for source in train["sources"])
    table = aligned_table("source", "documents", "tokens", "bytes/token", "weight", "share")
    for source in train["sources"]:
        share = f"{source['weight'] * source['tokens'] / weighted:.1%}"
        table.add_row(source["path"], *_figures(source), f"{source['weight']:g}", share)
    table.add_row("together", *_figures(train), "", "", style="bold")
    table.add_row("held out", *_figures(counts["validation"]), "", "")
    show(table)
    lengths = aligned_table("tokens a document", "documents trained")
    for longest, documents in ((longest, count) for longest, count in train["lengths"].items() if count):
        lengths.add_row(f"up to {int(longest):,}", f"{documents:,}")
    show(lengths)
    skipped = sum(counts["skipped"].values())
    say(
        f"left out: {counts['duplicates']:,} duplicates, {skipped:,} unusable documents, "
        f"{counts['bad_rows']:,} broken rows"
    )


def _figures(part: dict[str, Any]) -> list[str]:
    rate = f"{part['bytes'] / part['tokens']:.2f}" if part["tokens"] else "–"
    return [f"{part['documents']:,}", f"{part['tokens']:,}", rate]
