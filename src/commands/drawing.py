"""Token rows and tables on the terminal. Text from data is escaped: it can't control the terminal."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any

import numpy as np
from rich.text import Text

from ..console import aligned_table, console

OPEN, CLOSE = "⟦", "⟧"  # around highlighted tokens where there is no colour
HIGHLIGHT = "bold green"
QUANTILES = {"min": 0.0, "10%": 0.1, "median": 0.5, "90%": 0.9, "99%": 0.99, "max": 1.0}
_UNSAFE = {"Cc", "Cf", "Cs", "Zl", "Zp"}  # control and format characters, surrogates, line separators


def has_colour() -> bool:
    """Whether the terminal shows colours: not in a pipe, and not with NO_COLOR."""
    return console.is_terminal and console.color_system is not None and not console.no_color


def legend(meaning: str) -> None:
    """Prints how highlighted tokens look and what they are."""
    line = Text("green" if has_colour() else f"{OPEN}…{CLOSE}", style=HIGHLIGHT if has_colour() else "")
    console.print(line.append(f": {meaning}", style="default not bold"), soft_wrap=True)


def heading(text: str, *, level: int = 1) -> None:
    """Prints a line above rows (level 1) or above a part of a row (level 2)."""
    line = Text(f"{'──' if level == 1 else '·'} {visible(text)}", style="bold" if level == 1 else "dim")
    console.print(line, soft_wrap=True)


def line(text: str) -> None:
    """Prints a line of plain text."""
    console.print(Text(visible(text)), soft_wrap=True)


def tokens(tokenizer: Any, ids: Sequence[int], highlighted: Sequence[bool]) -> None:
    """Prints token ids as text, special tokens included, some of them highlighted."""
    text, done, end = Text(), "", 0
    for is_highlighted, run in groupby(highlighted, key=bool):
        end += len(list(run))
        so_far = _decoded(tokenizer, ids[:end])  # all from the start: alone, a run would lose its first space
        piece = visible(so_far[len(done) :])
        done = so_far
        if is_highlighted and not has_colour():
            piece = f"{OPEN}{piece}{CLOSE}"
        text.append(piece, style=HIGHLIGHT if is_highlighted else "")
    console.print(text, soft_wrap=True)


def _decoded(tokenizer: Any, ids: Sequence[int]) -> str:
    text: str = tokenizer.decode(
        [int(id) for id in ids], skip_special_tokens=False, clean_up_tokenization_spaces=False
    )
    return text


def visible(text: str) -> str:
    """Text whose control and format characters, except newline and tab, are written as escapes."""
    return "".join(
        character.encode("unicode_escape").decode()
        if unicodedata.category(character) in _UNSAFE and character not in "\n\t"
        else character
        for character in text
    )


def length_table(lengths: Iterable[tuple[str, Sequence[int]]]) -> None:
    """Prints a table of quantiles: one line for each name and its lengths; empty ones are omitted."""
    table = aligned_table("tokens", *QUANTILES)
    for name, values in lengths:
        if len(values):
            found = np.quantile(np.asarray(values), list(QUANTILES.values()), method="nearest")
            table.add_row(name, *(f"{int(value):,}" for value in found))
    console.print(table)


def share(part: float, whole: float) -> str:
    """`3 of 40 (7.5%)`"""
    return f"{part:,} of {whole:,} ({100 * part / max(1, whole):.1f}%)"
