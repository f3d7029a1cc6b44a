"""The report in the terminal: aligned tables of its headline figures, narrow enough for 80 columns."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.table import Table

from ..console import aligned_table, duration
from ..data.rows import RATINGS
from ..measures import RETENTION_SERIES
from .collect import BY_LENGTH
from .measured import asked_turns, measured_differences, measured_versions
from .notes import notes
from .words import MEASURE_COLUMNS, MISSING, SERIES_TITLES, difference_title, figure, words

# three of these, those that were measured, fit into the terminal
HEADLINES = ("gold_helpfulness", "violation_rate", "false_refusal_rate", "helpfulness_score", "safety_score")


def print_report(report: dict[str, Any], console: Console) -> None:
    """Prints what was measured; a table of which nothing is known is left out."""
    for make in (stages_table, reward_table, versions_table, differences_table, retention_table):
        if (table := make(report)) is not None:
            console.print(table)
            console.print()
    for line in _lines(report):
        console.print(line)
    for section in notes(report).values():
        for note in section:
            console.print(f"note: {note}")


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
    if any(found["prompts"] is not None for found in known.values()):
        prompts = (found["prompts"] for found in known.values())
        table.add_row("prompts of these", *(MISSING if count is None else f"{count:,}" for count in prompts))
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


def differences_table(report: dict[str, Any]) -> Table | None:
    """The headline measures; all of them are on the page."""
    groups = measured_differences(report)
    rows = sorted(
        (row for row in MEASURE_COLUMNS if row[0] in HEADLINES), key=lambda row: HEADLINES.index(row[0])
    )
    columns = [row for row in rows if any(group.get(row[0]) is not None for group in groups.values())][:3]
    if not columns:
        return None
    table = aligned_table("paired difference", *(heading for _, heading, _ in columns))
    for pair, group in groups.items():
        cells = (figure(group, key, percent, signed=True) for key, _, percent in columns)
        table.add_row(difference_title(*pair), *cells)
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
