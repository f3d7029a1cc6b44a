"""The results of a comparison: files and the table in the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..artifact import write_json
from ..console import console, say
from ..jsonl import Row, write_rows
from ..report.comparison_figures import comparison_figure
from ..report.comparison_tables import agreement_table, judge_table, shares_table
from ..report.paper import WIN_RATE
from ..report.style import COLOUR
from ..report.table import side_by_side

RESULTS, FIGURE, ANSWERS = "comparison.json", "comparison.png", "answers.jsonl"


def write(comparison: dict[str, Any], rows: Sequence[Row], out: Path) -> None:
    """Writes all results, with the paper's figures, to the folder `out`."""
    write_rows(out / ANSWERS, rows)
    write_json(out / RESULTS, comparison | {"paper": WIN_RATE})
    figure = comparison_figure(comparison)
    if figure is not None:
        figure.savefig(out / FIGURE, dpi=150, facecolor=COLOUR["page"])


def show(comparison: dict[str, Any], out: Path) -> None:
    """Prints the tables, and where the results are."""
    say(f"A: {comparison['a']['name']}\nB: {comparison['b']['name']}")
    titled = {"": comparison}
    for table in (shares_table(titled), agreement_table(titled), judge_table(titled)):
        if table is not None:
            for part in side_by_side(table["head"], table["rows"], console.width):
                console.print(part)
            console.print()
    say(f"results: {out / RESULTS}, {FIGURE}, {ANSWERS}")
