"""Several runs in the terminal, and as one self-contained HTML page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from ...artifact import write_lines
from ..page import environment
from ..style import PALETTE
from ..table import side_by_side
from ..words import WORSE
from .figures import FIGURES
from .measures import rows
from .reading import Run
from .tables import figures_table, notes, settings_table

PAGE = "runs.html"


def print_runs(runs: Sequence[Run], console: Console) -> None:
    """Prints the figures of the runs, their differences to the first one, and the settings that differ."""
    found = rows(runs)
    for title, table in (("figure", figures_table(runs, found)), ("setting", settings_table(runs))):
        if not table["rows"]:
            console.print(f"{title}: none differs\n")
            continue
        for part in side_by_side([title, *table["head"][1:]], table["rows"], console.width):
            console.print(part)
            console.print()
    for note in notes(runs, found):
        console.print(f"note: {note}", markup=False)


def write_page(runs: Sequence[Run], folder: Path) -> Path:
    """Writes the page into a folder, which is made if it does not exist, and returns its path.

    The page is written at once: a reader, or a process killed meanwhile, finds the old page or the new one.
    """
    found = rows(runs)
    drawn = [{"svg": svg, "caption": caption} for draw, caption in FIGURES if (svg := draw(runs))]
    text = (
        environment()
        .get_template(PAGE)
        .render(
            runs=runs,
            palette=PALETTE,
            figures=drawn,
            figures_table=figures_table(runs, found),
            settings_table=settings_table(runs),
            notes=list(notes(runs, found)),
            worse=WORSE,
            sample_versions=[],
        )
    )
    folder.mkdir(parents=True, exist_ok=True)
    write_lines(folder / PAGE, [text])
    return folder / PAGE
