"""Dialogues with an instruction, and checks of whether answers follow it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Protocol

from ..data.fields import field, text_field
from ..data.instructions import Instruction, read_instruction
from ..data.intake import Intake
from ..data.reading import Format, stream
from ..data.records import records
from ..data.rows import Message, Prompt
from ..errors import DataError
from ..measures import RETENTION_TURNS
from ..miniature.gold import Gold
from ..settings import Source
from .settings import RetentionSettings

FIELDS = frozenset({"id", "instruction", "questions", "check", "check.kind", "check.value"})


class InstructionScorer(Protocol):
    """Scores answers of instructed dialogues; `miniature.gold.Gold` implements it."""

    def follows(self, row_id: str, answer: str) -> bool: ...

    def explicit_question(self, row_id: str) -> str | None: ...

    def explicit_answer_ok(self, row_id: str, answer: str) -> bool: ...


@dataclass(frozen=True)
class InstructedDialogue:
    """An instruction, one question per turn, and a check of the answers if code can check them."""

    id: str
    instruction: str
    questions: list[str]
    check: Instruction | None = None


class InstructionChecks:
    """Scores answers by the checks of the rows, for data without ground truth.

    Raises DataError for a dialogue without a check.
    """

    def __init__(self, dialogues: Sequence[InstructedDialogue]) -> None:
        self._checks: dict[str, Instruction] = {}
        for dialogue in dialogues:
            if dialogue.check is None:
                raise DataError(
                    f"retention test row {dialogue.id!r} has no `check`, which gold: false requires; use the "
                    "test.jsonl of a stage gatt, or a miniature world with gold: true"
                )
            self._checks[dialogue.id] = dialogue.check

    def follows(self, row_id: str, answer: str) -> bool:
        return self._checks[row_id].is_followed_by(answer)

    def explicit_question(self, row_id: str) -> str | None:
        return None

    def explicit_answer_ok(self, row_id: str, answer: str) -> bool:
        raise NotImplementedError("there are no direct questions")


def check_dialogue_ids(dialogues: Sequence[InstructedDialogue], gold: Gold) -> None:
    """Raises DataError for a dialogue whose instruction the ground truth does not have."""
    for dialogue in dialogues:
        if not gold.knows_dialogue(dialogue.id):
            raise DataError(
                f"retention test row {dialogue.id!r}: the ground truth (truth.json) has no dialogue with "
                "this id; use the test files of this world, or set gold: false to apply each row's `check`"
            )


class InstructedTests:
    """The dialogues that the settings name; each file is read once, so its bad rows are counted once.

    `root` is the folder of the files.
    """

    def __init__(self, settings: RetentionSettings, root: Path, intake: Intake) -> None:
        self.settings, self._root, self._intake = settings, root, intake

    @cached_property
    def _longest(self) -> list[InstructedDialogue]:
        count, turns = self.settings.dialogues, self.settings.turns
        if self.settings.versions:
            count = max(count, self.settings.dialogues_for_versions)
            turns = max(turns, self.settings.turns_for_versions)
        return self._read(self.settings.trained, count, turns)

    @cached_property
    def trained(self) -> list[InstructedDialogue]:
        return _shortened(self._longest, self.settings.dialogues, self.settings.turns)

    @cached_property
    def for_versions(self) -> list[InstructedDialogue]:
        settings = self.settings
        return _shortened(self._longest, settings.dialogues_for_versions, settings.turns_for_versions)

    @cached_property
    def unseen(self) -> list[InstructedDialogue] | None:
        settings = self.settings
        if settings.unseen is None:
            return None
        return self._read(settings.unseen, settings.unseen_dialogues, settings.turns)

    def _read(self, path: str, count: int, turns: int) -> list[InstructedDialogue]:
        return read_instructed(path, self._root, count, turns=turns, intake=self._intake)


def _shortened(dialogues: Sequence[InstructedDialogue], count: int, turns: int) -> list[InstructedDialogue]:
    return [replace(dialogue, questions=dialogue.questions[:turns]) for dialogue in dialogues[:count]]


def read_instructed(
    path: str, data: Path, limit: int, *, turns: int = RETENTION_TURNS[-1], intake: Intake | None = None
) -> list[InstructedDialogue]:
    """Reads the first `limit` rows of a test file. Raises DataError: a bad row, too few rows.

    A row with too few questions or with the id of an earlier row is a bad row.
    """
    intake = intake or Intake()
    format = Format(partial(_instructed, turns=turns, intake=intake, ids=set()), records, FIELDS)
    source = Source(path=path, format="instructed")
    dialogues = list(stream([source], data, {source.format: format}, kind="dialogues", intake=intake))
    if len(dialogues) < limit:
        raise DataError(
            f"{data / path}: {len(dialogues)} dialogues; expected at least {limit}, as the settings of "
            "`retention` require"
        )
    return dialogues[:limit]


def _instructed(row: Mapping[str, Any], *, turns: int, intake: Intake, ids: set[str]) -> InstructedDialogue:
    """Converts a row. `ids`: those of the rows before it, to which this one's is added: checks go by id."""
    if (id := text_field(row, "id")) in ids:
        raise DataError(f"the id {id!r} is that of an earlier row; expected a different id in each row")
    questions = field(row, "questions", list) or []
    if len(questions) < turns or not all(isinstance(question, str) for question in questions):
        raise DataError(f"{len(questions)} questions; expected a list of at least {turns} texts")
    check, instruction = field(row, "check", dict), text_field(row, "instruction")
    for question in questions[:turns]:
        prompt = [Message(role="system", content=instruction), Message(role="user", content=question)]
        intake.check(Prompt(prompt))
    ids.add(id)
    return InstructedDialogue(
        id,
        instruction,
        questions[:turns],
        None if check is None else read_instruction(check),
    )
