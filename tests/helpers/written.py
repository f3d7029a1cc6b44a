"""Small data files for the tests of their readers."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

from llamita.data.rows import Dialogue
from llamita.settings import Source

PAIR = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]
COMPARED = {"chosen": "yes", "rejected": "no"}


def write(path: Path, rows: list[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(
        row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) + "\n" for row in rows
    )
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def source(format: str, path: str = "rows.jsonl", **options: Any) -> list[Source]:
    return [Source(path=path, format=format, **options)]


def dialogue(user: str, answer: str) -> Dialogue:
    return Dialogue([{"role": "user", "content": user}, {"role": "assistant", "content": answer}])
