"""Which rows of its sources a stage takes, and what becomes of all others: one rule for every kind of row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..errors import DataError
from ..jsonl import write_rows
from ..processes import is_main_process
from .rows import Comparison, Dialogue, Message, Prompt

REFUSED = "bad_rows.jsonl"
Check = Callable[[Sequence[Message], str], None]


class Intake:
    """A bad row stops the stage, or is left out if `max_bad_rows` allows it; all are counted.

    Args:
        max_bad_rows: number of bad rows that may be left out.
        check: raises DataError for messages up to a role that the model's chat format can't write
            (`chat_format.encoding.check_of`); None: there is no chat format.
        refused: those of a killed stage that resumes.

    Attributes:
        skipped: sound rows that can't be used, by reason.
        refused: why bad rows were left out, each with file and line.
        ignored: rows by each field that holds something and that their format does not read.
        changed: rows that are taken otherwise than they are written, by what was changed.
    """

    def __init__(
        self, max_bad_rows: int = 0, check: Check | None = None, refused: list[str] | None = None
    ) -> None:
        self.max_bad_rows, self._check = max_bad_rows, check
        self.refused: list[str] = [] if refused is None else refused
        self.skipped: Counter[str] = Counter()
        self.ignored: Counter[str] = Counter()
        self.changed: Counter[str] = Counter()

    def refuse(self, reason: str) -> None:
        """Leaves out a bad row. Raises DataError if it is one too many."""
        self.refused.append(reason)
        if len(self.refused) > self.max_bad_rows:
            others = f"; {self.max_bad_rows:,} broken rows before it were left out (max_bad_rows)"
            raise DataError(reason + (others if self.max_bad_rows else ""))

    def check(self, row: Any) -> None:
        """Raises DataError for a row whose messages the model's chat format can't write."""
        if self._check is None:
            return
        if isinstance(row, Prompt):
            self._check(row.messages, "user")
        elif isinstance(row, Dialogue):
            instruction: list[Message] = [{"role": "system", "content": row.instruction or ""}]
            self._check([*instruction, *row.messages] if row.instruction else row.messages, "assistant")
        elif isinstance(row, Comparison):
            for answer in (row.chosen, row.rejected):
                self._check([*row.prompt, {"role": "assistant", "content": answer}], "assistant")

    def metrics(self) -> dict[str, Any]:
        """`skipped` (rows by reason), `refused` (bad rows), `ignored_fields` and `changed` (rows by name)."""
        return {
            "skipped": dict(+self.skipped),
            "bad_rows": len(self.refused),
            "ignored_fields": dict(self.ignored),
            "changed": dict(self.changed),
        }

    def write(self, folder: Path) -> None:
        """Lists the bad rows in `folder/bad_rows.jsonl`, if there are any."""
        if self.refused and is_main_process():
            write_rows(folder / REFUSED, self.refused)
