"""Rows of data files: turns of dialogues, a comparison, and files of such rows."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

from llamita.data.rows import Dialogue

PAIR = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]
COMPARED = {"chosen": "yes", "rejected": "no"}


def turn(user: str, answer: str | None = None) -> list[dict[str, str]]:
    """Returns a user message and, if given, the assistant's answer."""
    answers = [] if answer is None else [{"role": "assistant", "content": answer}]
    return [{"role": "user", "content": user}, *answers]


def dialogue(user: str, answer: str) -> Dialogue:
    """Returns a dialogue of one turn, as readers return it."""
    return Dialogue(turn(user, answer))


def write(path: Path, rows: list[Any]) -> Path:
    """Writes a JSON line for each row (strings unchanged); compresses it if the name ends in .gz."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(
        row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) + "\n" for row in rows
    )
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path
