"""Rows of data files: turns of dialogues, a comparison, and files that hold such rows."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

from llamita.data.rows import Dialogue

PAIR = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]
COMPARED = {"chosen": "yes", "rejected": "no"}


def turn(user: str, answer: str | None = None) -> list[dict[str, str]]:
    """A user's message and, where there is one, the assistant's answer."""
    answers = [] if answer is None else [{"role": "assistant", "content": answer}]
    return [{"role": "user", "content": user}, *answers]


def dialogue(user: str, answer: str) -> Dialogue:
    """What a reader makes of a dialogue of one turn."""
    return Dialogue(turn(user, answer))


def write(path: Path, rows: list[Any]) -> Path:
    """A JSON line for each row, a row that is text as it stands; compressed where the name ends in .gz."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(
        row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) + "\n" for row in rows
    )
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path
