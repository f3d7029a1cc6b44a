"""The report in the terminal: aligned tables of its headline figures, narrow enough for 80 columns."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.table import Table

from ..console import aligned_table, duration
from ..data.rows import RATINGS
from ..evaluation.keys import RETENTION_SERIES
from .collect import BY_LENGTH
from .measured import asked_turns, measured_versions
from .words import MEASURE_COLUMNS, MISSING, SERIES_TITLES, figure, words


def print_report(report: dict[str, Any], console: Console) -> None:
    """Prints what was measured; a table of which nothing is known is left out."""
    for make in (stages_table, reward_table, versions_table, retention_table):
        if (table := make(report)) is not None:
            console.print(table)
            console.print()
    for line in _lines(report):
        console.print(line)


def stages_table(report: dict[str, Any]) -> Table | None:
    seconds = report["wall_seconds"]
    if not seconds:
        return None
    table = aligned_table("stage", "wall time")
    for name, value in seconds.items():
        table.add_row(words(name), duration(value))
    table.add_row("together", duration(sum(seconds.values())), style="bold")
    return table


def reward_table(report: dict[str, Any]) -> Table | None:
    known = {name: found for name, found in report["reward"].items() if found["accuracy"] is not None}
    if not known:
        return None
    table = aligned_table("reward model accuracy, %", *map(words, known))
    for group, names in (("by_rating", RATINGS), ("by_length", BY_LENGTH)):
        for name in names:
            if any(found[group][name] is not None for found in known.values()):
                cells = (figure(found[group], name, percent=True) for found in known.values())
                table.add_row(words(name), *cells)
    table.add_row("all", *(figure(found, "accuracy", percent=True) for found in known.values()))
    if any(found["mean_score"] is not None for found in known.values()):
        table.add_row("mean score", *(figure(found, "mean_score") for found in known.values()))
    table.add_row("pairs held out", *(f"{found['pairs'] or 0:,}" for found in known.values()))
    return table


def versions_table(report: dict[str, Any]) -> Table | None:
    groups = measured_versions(report)
    rows = [row for row in MEASURE_COLUMNS if any(one.get(row[0]) is not None for one in groups.values())]
    if not rows:
        return None
    table = aligned_table("version", *map(words, groups))
    for key, heading, percent in rows:
        table.add_row(heading, *(figure(group, key, percent) for group in groups.values()))
    return table


def retention_table(report: dict[str, Any]) -> Table | None:
    groups = report["gatt_retention"]
    known = [name for name in RETENTION_SERIES if any(value is not None for value in groups[name].values())]
    if not known:
        return None
    turns = asked_turns(report)
    table = aligned_table("instruction kept at turn, %", *turns)
    for name in known:
        shares = (groups[name].get(turn) for turn in turns)
        cells = (MISSING if share is None else f"{share:.1%}".rstrip("%") for share in shares)
        table.add_row(SERIES_TITLES[name], *cells)
    return table


def _lines(report: dict[str, Any]) -> Iterator[str]:
    """Single figures, a line each."""
    pretrain, demonstrations = report["pretrain"], report["demonstrations"]
    if pretrain["validation_bits_per_byte"] is not None:
        bits, unigram = (
            figure(pretrain, key) for key in ("validation_bits_per_byte", "unigram_bits_per_byte")
        )
        yield f"pretraining, held out: {bits} bits per byte, by token frequencies alone {unigram}"
    if demonstrations["gold_helpfulness"] is not None:
        yield f"gold helpfulness of the demonstrations: {figure(demonstrations, 'gold_helpfulness')}"
