"""The report in the terminal: aligned tables of the headline figures that fit its width."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table as RichTable

from ..console import aligned_table, duration
from ..data.rows import RATINGS
from ..measures import RETENTION_SERIES
from .benchmark_tables import benchmark_table
from .collect import BY_LENGTH
from .comparison_tables import win_rate_lines
from .contamination_tables import overlap_table
from .measured import answered_prompts, measured_differences, measured_turns
from .notes import notes
from .page_tables import Table, difference, rejection_table, versions_table
from .red_team_tables import red_team_table
from .safety_tables import distillation_table, false_refusals_table, version_retention_row, violations_table
from .words import MEASURE_COLUMNS, MISSING, SERIES_TITLES, count, difference_title, figure, words

# the first three of these that were measured fit in the terminal
HEADLINES = ("gold_helpfulness", "violation_rate", "false_refusal_rate", "helpfulness_score", "safety_score")

WORSE_MARK = " !"


def print_report(report: dict[str, Any], console: Console) -> None:
    """Prints all tables that have any measured value, then single figures and notes."""
    tables = [stages] if (stages := stages_table(report)) is not None else []
    for title, columns in (
        ("reward model accuracy %", reward_table(report)),
        ("rejection sampling", rejection_table(report)),
        ("version", versions_table(report)),
        ("paired difference", differences_table(report)),
        ("instruction following at turn, %", retention_table(report)),
        ("", violations_table(report)),
        ("", false_refusals_table(report)),
        ("", version_retention_row(report)),
        ("", distillation_table(report)),
        ("", red_team_table(report)),
        ("", benchmark_table(report)),
        ("", overlap_table(report)),
    ):
        if columns is not None:
            tables += side_by_side(
                [title or columns["head"][0], *columns["head"][1:]], columns["rows"], console.width
            )
    for table in tables:
        console.print(table)
        console.print()
    for line in _lines(report):
        console.print(line, markup=False)
    for section in notes(report).values():
        for note in section:
            console.print(f"note: {note}", markup=False)


def side_by_side(head: list[str], rows: list[list[str]], width: int) -> Iterator[RichTable]:
    """Yields the table, split into several if it is too wide; each repeats the titles of the rows."""
    titles, *columns = zip(head, *rows, strict=True)
    available = width - max(map(len, titles))
    blocks: list[list[tuple[str, ...]]] = [[]]
    remaining = available
    for column in columns:
        needed = max(map(len, column)) + 2
        if needed > remaining and blocks[-1]:
            blocks.append([])
            remaining = available
        blocks[-1].append(column)
        remaining -= needed
    for block in blocks:
        (first, *others), *lines = zip(titles, *block, strict=True)
        table = aligned_table(escape(first), *map(escape, others))
        for line in lines:
            table.add_row(*map(escape, line))
        yield table


def stages_table(report: dict[str, Any]) -> RichTable | None:
    seconds = report["wall_seconds"]
    if not seconds:
        return None
    table = aligned_table("stage", "wall time")
    for name, value in seconds.items():
        table.add_row(escape(words(name)), duration(value))
    table.add_row("total", duration(sum(seconds.values())), style="bold")
    return table


def reward_table(report: dict[str, Any]) -> Table | None:
    models = {name: model for name, model in report["reward"].items() if model["accuracy"] is not None}
    if not models:
        return None
    rows = [
        [words(name), *(figure(model[group], name, percent=True) for model in models.values())]
        for group, names in (("by_rating", RATINGS), ("by_length", BY_LENGTH))
        for name in names
        if any(model[group][name] is not None for model in models.values())
    ]
    rows.append(["all pairs", *(figure(model, "accuracy", percent=True) for model in models.values())])
    if any(model["mean_score"] is not None for model in models.values()):
        rows.append(["mean score (logit)", *(figure(model, "mean_score") for model in models.values())])
    rows.append(["held-out pairs", *(count(model["pairs"] or 0) for model in models.values())])
    if any(model["prompts"] is not None for model in models.values()):
        rows.append(["distinct prompts", *(count(model["prompts"]) for model in models.values())])
    return {"head": ["", *map(words, models)], "rows": rows}


def differences_table(report: dict[str, Any]) -> Table | None:
    """Returns paired differences of the headline measures; the page has all measures."""
    groups = measured_differences(report)
    headlines = sorted(
        (column for column in MEASURE_COLUMNS if column[0] in HEADLINES),
        key=lambda column: HEADLINES.index(column[0]),
    )
    columns = [
        (key, title, percent)
        for key, title, percent in headlines
        if any(group.get(key) is not None for group in groups.values())
    ][:3]
    if not columns:
        return None
    rows = [
        [
            difference_title(*pair),
            *(difference(group, key, percent, mark=WORSE_MARK) for key, _, percent in columns),
        ]
        for pair, group in groups.items()
    ]
    titles = (title.replace(" rate", "") for _, title, _ in columns)  # three fit in 80 letters
    return {"head": ["", *titles], "rows": rows}


def retention_table(report: dict[str, Any]) -> Table | None:
    groups = report["gatt_retention"]
    measured = [
        name for name in RETENTION_SERIES if any(value is not None for value in groups[name].values())
    ]
    if not measured:
        return None
    turns, rows = measured_turns(report), []
    for name in measured:
        shares = (groups[name].get(turn) for turn in turns)
        cells = (MISSING if share is None else f"{share:.1%}".rstrip("%") for share in shares)
        rows.append([SERIES_TITLES[name], *cells])
    return {"head": ["", *turns], "rows": rows}


def _lines(report: dict[str, Any]) -> Iterator[str]:
    """Yields single figures, one per line."""
    differences = differences_table(report)
    if differences and any(cell.endswith(WORSE_MARK) for row in differences["rows"] for cell in row):
        yield f"{WORSE_MARK.strip()} worse by more than two paired standard errors"
    yield from win_rate_lines(report)
    pretrain, demonstrations = report["pretrain"], report["demonstrations"]
    if pretrain["validation_bits_per_byte"] is not None:
        bits, unigram = (
            figure(pretrain, key) for key in ("validation_bits_per_byte", "unigram_bits_per_byte")
        )
        yield f"held-out pretraining text: {bits} bits per byte (unigram baseline: {unigram})"
    if demonstrations["gold_helpfulness"] is not None:
        yield f"gold helpfulness of the SFT demonstrations: {figure(demonstrations, 'gold_helpfulness')}"
    counts = {kind: answered_prompts(report, kind) for kind in report["prompts"]}
    if sizes := ", ".join(f"{number:,} {kind}" for kind, number in counts.items() if number):
        yield f"test prompts: {sizes}"
