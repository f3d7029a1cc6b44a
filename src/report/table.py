"""The report in the terminal: aligned tables of its headline figures, as wide as the terminal is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.table import Table as RichTable

from ..console import aligned_table, duration
from ..data.rows import RATINGS
from ..measures import RETENTION_SERIES
from .collect import BY_LENGTH
from .measured import asked_turns, measured_differences
from .notes import notes
from .page_tables import Table, rejection_table, versions_table
from .words import MEASURE_COLUMNS, MISSING, SERIES_TITLES, count, difference_title, figure, words

# three of these, those that were measured, fit into the terminal
HEADLINES = ("gold_helpfulness", "violation_rate", "false_refusal_rate", "helpfulness_score", "safety_score")


def print_report(report: dict[str, Any], console: Console) -> None:
    """Prints what was measured; a table of which nothing is known is left out."""
    printed = [stages] if (stages := stages_table(report)) is not None else []
    for first, table in (
        ("reward model accuracy, %", reward_table(report)),
        ("rejection sampling", rejection_table(report)),
        ("version", versions_table(report)),
        ("paired difference", differences_table(report)),
        ("instruction kept at turn, %", retention_table(report)),
    ):
        if table is not None:
            printed += side_by_side([first, *table["head"][1:]], table["rows"], console.width)
    for one in printed:
        console.print(one)
        console.print()
    for line in _lines(report):
        console.print(line)
    for section in notes(report).values():
        for note in section:
            console.print(f"note: {note}")


def side_by_side(head: list[str], rows: list[list[str]], width: int) -> Iterator[RichTable]:
    """The table, or where it is too wide several of them: each has the rows' titles and what fits beside."""
    titles, *columns = zip(head, *rows, strict=True)
    room = width - max(map(len, titles))
    blocks: list[list[tuple[str, ...]]] = [[]]
    left = room
    for column in columns:
        needed = max(map(len, column)) + 2
        if needed > left and blocks[-1]:
            blocks.append([])
            left = room
        blocks[-1].append(column)
        left -= needed
    for block in blocks:
        (first, *others), *lines = zip(titles, *block, strict=True)
        table = aligned_table(first, *others)
        for line in lines:
            table.add_row(*line)
        yield table


def stages_table(report: dict[str, Any]) -> RichTable | None:
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
    rows = [
        [words(name), *(figure(found[group], name, percent=True) for found in known.values())]
        for group, names in (("by_rating", RATINGS), ("by_length", BY_LENGTH))
        for name in names
        if any(found[group][name] is not None for found in known.values())
    ]
    rows.append(["all", *(figure(found, "accuracy", percent=True) for found in known.values())])
    if any(found["mean_score"] is not None for found in known.values()):
        rows.append(["mean score", *(figure(found, "mean_score") for found in known.values())])
    rows.append(["pairs held out", *(count(found["pairs"] or 0) for found in known.values())])
    if any(found["prompts"] is not None for found in known.values()):
        rows.append(["prompts of these", *(count(found["prompts"]) for found in known.values())])
    return {"head": ["", *map(words, known)], "rows": rows}


def differences_table(report: dict[str, Any]) -> Table | None:
    """The headline measures; all of them are on the page."""
    groups = measured_differences(report)
    rows = sorted(
        (row for row in MEASURE_COLUMNS if row[0] in HEADLINES), key=lambda row: HEADLINES.index(row[0])
    )
    columns = [row for row in rows if any(group.get(row[0]) is not None for group in groups.values())][:3]
    if not columns:
        return None
    lines = [
        [difference_title(*pair), *(figure(group, key, percent, signed=True) for key, _, percent in columns)]
        for pair, group in groups.items()
    ]
    return {"head": ["", *(heading for _, heading, _ in columns)], "rows": lines}


def retention_table(report: dict[str, Any]) -> Table | None:
    groups = report["gatt_retention"]
    known = [name for name in RETENTION_SERIES if any(value is not None for value in groups[name].values())]
    if not known:
        return None
    turns, rows = asked_turns(report), []
    for name in known:
        shares = (groups[name].get(turn) for turn in turns)
        cells = (MISSING if share is None else f"{share:.1%}".rstrip("%") for share in shares)
        rows.append([SERIES_TITLES[name], *cells])
    return {"head": ["", *turns], "rows": rows}


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
