"""Writes the files of a world as JSON lines."""

from __future__ import annotations

import random
from collections.abc import Iterable
from pathlib import Path

from ..jsonl import Row, write_rows


class Writer:
    """Writes JSON lines and counts them; each file has its own random generator, seeded with its name."""

    def __init__(self, out: Path, seed: int) -> None:
        self.out, self.seed = out, seed
        self.counts: dict[str, int] = {}

    def generator(self, name: str) -> random.Random:
        return random.Random(f"{self.seed}/{name}")

    def write(self, name: str, rows: Iterable[Row]) -> None:
        self.counts[name] = write_rows(self.out / f"{name}.jsonl", rows)
