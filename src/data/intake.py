"""Counts and limits the rows that a stage skips: one rule for every kind of row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import DataError
from ..jsonl import write_rows
from ..processes import is_main_process
from .rows import Comparison, Dialogue, LabelledAnswer, Message, Prompt

BAD_ROWS = "bad_rows.jsonl"
ANY_QUESTION: Message = {"role": "user", "content": "?"}  # an answer alone is no dialogue
Check = Callable[[Sequence[Message], str], None]


class Intake:
    """Counts the rows that are not used as they are; more bad rows than `max_bad_rows` stop the stage.

    Args:
        max_bad_rows: number of bad rows to skip before a stage stops.
        check: raises DataError for messages that the model's chat format can't write, see
            `chat_format.encoding.check_of`; None: there is no chat format.
        bad_rows: bad rows of an interrupted stage that resumes.

    Attributes:
        skipped: number of valid but unusable rows, by reason.
        bad_rows: errors of the bad rows, each with file and line.
        ignored: number of rows by each non-empty field that their format does not read.
        changed: number of rows that are not used exactly as written, by the change.
    """

    def __init__(
        self, max_bad_rows: int = 0, check: Check | None = None, bad_rows: list[str] | None = None
    ) -> None:
        self.max_bad_rows, self._check = max_bad_rows, check
        self.bad_rows: list[str] = [] if bad_rows is None else bad_rows
        self.skipped: Counter[str] = Counter()
        self.ignored: Counter[str] = Counter()
        self.changed: Counter[str] = Counter()

    def add_bad_row(self, reason: str) -> None:
        """Records a bad row. Raises DataError if there are now more than `max_bad_rows`."""
        self.bad_rows.append(reason)
        if len(self.bad_rows) > self.max_bad_rows:
            others = f"; {self.max_bad_rows:,} bad rows before it were skipped (max_bad_rows)"
            raise DataError(reason + (others if self.max_bad_rows else ""))

    def check(self, row: Any) -> None:
        """Raises DataError for a row if the model's chat format can't write its messages."""
        if self._check is None:
            return
        if isinstance(row, Prompt):
            self._check(row.messages, "user")
        elif isinstance(row, Dialogue):
            instruction: list[Message] = [{"role": "system", "content": row.instruction or ""}]
            self._check([*instruction, *row.messages] if row.instruction else row.messages, "assistant")
        elif isinstance(row, LabelledAnswer):
            self._check([ANY_QUESTION, {"role": "assistant", "content": row.answer}], "assistant")
        elif isinstance(row, Comparison):
            for answer in (row.chosen, row.rejected):
                self._check([*row.prompt, {"role": "assistant", "content": answer}], "assistant")

    def metrics(self) -> dict[str, Any]:
        """Returns numbers of rows: `skipped` (by reason), `bad_rows`, `ignored_fields`, `changed`."""
        return {
            "skipped": dict(+self.skipped),
            "bad_rows": len(self.bad_rows),
            "ignored_fields": dict(self.ignored),
            "changed": dict(self.changed),
        }

    def state(self) -> dict[str, Any]:
        """Returns all counts and errors as JSON, for `restore`."""
        return {name: getattr(self, name) for name in ("skipped", "bad_rows", "ignored", "changed")}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Replaces the counts by those of `state`: of rows that were read earlier, or by another process."""
        self.bad_rows = list(state["bad_rows"])
        for name in ("skipped", "ignored", "changed"):
            setattr(self, name, Counter(state[name]))

    def write(self, folder: Path) -> None:
        """Writes the errors of the bad rows to `folder/bad_rows.jsonl`, if there are any."""
        if self.bad_rows and is_main_process():
            write_rows(folder / BAD_ROWS, self.bad_rows)
