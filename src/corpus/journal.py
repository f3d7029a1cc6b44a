"""Progress of writing a corpus, from which an interrupted `prepare` resumes."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from types import TracebackType
from typing import Any

CACHE = 64 * 1024  # KiB of SQLite's page cache


class Journal:
    """The keys of all documents so far, and a state, in one SQLite file; `commit` stores both atomically.

    Args:
        path: the file, which is created if it does not exist.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._database = sqlite3.connect(path, isolation_level=None)
        run = self._database.execute
        run(f"PRAGMA cache_size = -{CACHE}")
        run("BEGIN IMMEDIATE")
        run("CREATE TABLE IF NOT EXISTS documents (key BLOB PRIMARY KEY) WITHOUT ROWID")
        run("CREATE TABLE IF NOT EXISTS journal (place INTEGER PRIMARY KEY, value TEXT)")
        row = run("SELECT value FROM journal").fetchone()
        self.state: Any = None if row is None else json.loads(row[0])  # from the last commit

    def is_new(self, key: bytes) -> bool:
        """Adds a document's key; returns False if it was added before."""
        cursor = self._database.execute("INSERT INTO documents VALUES (?) ON CONFLICT DO NOTHING", (key,))
        return cursor.rowcount == 1

    def commit(self, state: Any) -> None:
        """Stores all keys so far and `state` (JSON-serializable), from which an interrupted run resumes."""
        self._database.execute("INSERT OR REPLACE INTO journal VALUES (0, ?)", (json.dumps(state),))
        self._database.execute("COMMIT")
        self._database.execute("BEGIN IMMEDIATE")

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._database.close()
