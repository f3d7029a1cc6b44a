"""Measures by turn whether a model follows an instruction that was given once (section 3.3, table 30).

The instruction is in the system message of the first turn; the history contains the model's own answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
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
from ..settings import Source
from .attention import RecordedDialogue
from .responder import Responder, SampledAnswer
from .values import Column, Figures, figures

FIELDS = frozenset({"id", "instruction", "questions", "check", "check.kind", "check.value"})
OTHER_INSTRUCTION = "~"  # in no dialogue; used to find the instruction's tokens


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


@dataclass(frozen=True)
class Retention:
    """Instruction following by turn.

    Attributes:
        followed: turn -> for each dialogue 1 if its answer follows the instruction, else 0; None if the
            dialogue exceeded the context before this turn.
        stated: the same for correct answers to a direct question about the instruction; None also if it was
            not asked.
        turns: number of turns of a complete dialogue.
        groups: the instruction of each dialogue; dialogues with equal instructions may be dependent.
        dialogues: the dialogues themselves.
    """

    followed: dict[str, Column]
    stated: dict[str, Column]
    turns: int
    groups: list[str]
    dialogues: list[RecordedDialogue]

    @property
    def implicit(self) -> Figures:
        """Rates by turn of the dialogues that reached it, with errors: `{"1": …, "1_se": …, …}`."""
        return figures(self.followed, self.groups)

    @property
    def explicit(self) -> Figures:
        """The same for correct answers to direct questions."""
        return figures(self.stated, self.groups)

    @property
    def counts(self) -> dict[str, Any]:
        """Numbers of dialogues: started, over the context, and by turn those that the rates count."""
        return {
            "started": len(self.dialogues),
            "outgrown": sum(len(dialogue.answers) < self.turns for dialogue in self.dialogues),
            "reached": {turn: _count_values(column) for turn, column in self.followed.items()},
            "asked": {turn: _count_values(column) for turn, column in self.stated.items()},
        }


def _count_values(column: Column) -> int:
    return sum(value is not None for value in column)


def read_instructed(
    path: str, data: Path, limit: int, *, turns: int = RETENTION_TURNS[-1], intake: Intake | None = None
) -> list[InstructedDialogue]:
    """Reads the first `limit` rows of a test file. Raises DataError: a bad row, too few questions or rows."""
    intake = intake or Intake()
    format = Format(partial(_instructed, turns, intake), records, FIELDS)
    source = Source(path=path, format="instructed")
    dialogues = list(stream([source], data, {source.format: format}, kind="dialogues", intake=intake))
    if len(dialogues) < limit:
        raise DataError(
            f"{data / path}: {len(dialogues)} dialogues; expected at least {limit}, as the settings of "
            "`retention` require"
        )
    return dialogues[:limit]


def _instructed(turns: int, intake: Intake, row: Mapping[str, Any]) -> InstructedDialogue:
    questions = field(row, "questions", list) or []
    if len(questions) < turns or not all(isinstance(question, str) for question in questions):
        raise DataError(f"{len(questions)} questions; expected a list of at least {turns} texts")
    check, instruction = field(row, "check", dict), text_field(row, "instruction")
    for question in questions[:turns]:
        prompt = [Message(role="system", content=instruction), Message(role="user", content=question)]
        intake.check(Prompt(prompt))
    return InstructedDialogue(
        text_field(row, "id"),
        instruction,
        questions[:turns],
        None if check is None else read_instruction(check),
    )


def measure_retention(
    responder: Responder, scorer: InstructionScorer, dialogues: Sequence[InstructedDialogue]
) -> Retention:
    """Samples all dialogues and scores their answers at the turns of `RETENTION_TURNS`.

    A dialogue that exceeds the context ends there: it is counted, and later turns are measured without it.
    """
    turns = len(dialogues[0].questions)
    questions = [
        responder.encode_questions(dialogue.questions, dialogue.instruction) for dialogue in dialogues
    ]
    answers = responder.answer_dialogues(questions, "dialogues")
    followed: dict[str, Column] = {
        str(turn): [
            float(scorer.follows(dialogue.id, answered[turn - 1].text)) if len(answered) >= turn else None
            for dialogue, answered in zip(dialogues, answers, strict=True)
        ]
        for turn in measured_turns(turns)
    }
    return Retention(
        followed=followed,
        stated=_ask_directly(responder, scorer, dialogues, questions=questions, answers=answers),
        turns=turns,
        groups=[dialogue.instruction for dialogue in dialogues],
        dialogues=[
            _record(responder, dialogue, encoded, answers=answered)
            for dialogue, encoded, answered in zip(dialogues, questions, answers, strict=True)
        ],
    )


def _record(
    responder: Responder,
    dialogue: InstructedDialogue,
    questions: Sequence[list[int]],
    *,
    answers: Sequence[SampledAnswer],
) -> RecordedDialogue:
    """Returns the ids of a dialogue; the instruction's span is where another instruction changes the ids."""
    (first,), (other,) = (
        responder.encode_questions(dialogue.questions[:1], instruction)
        for instruction in (dialogue.instruction, OTHER_INSTRUCTION)
    )
    start = _common_prefix(first, other)
    end = len(first) - _common_prefix(first[start:][::-1], other[start:][::-1])
    spans = []
    for turn, answer in enumerate(answers):
        before = len(responder.history(questions[:turn], answers[:turn])) + len(questions[turn])
        spans.append((before, before + len(answer.ids)))
    ids = responder.history(questions[: len(answers)], answers)
    return RecordedDialogue(ids, (start, end), spans)


def _common_prefix(first: Sequence[int], second: Sequence[int]) -> int:
    """Returns the length of the longest common prefix of two rows of ids."""
    pairs = zip(first, second, strict=False)
    return next((at for at, (a, b) in enumerate(pairs) if a != b), min(len(first), len(second)))


def measured_turns(turns: int) -> list[int]:
    """Returns the turns at which dialogues of `turns` turns are measured."""
    return [turn for turn in RETENTION_TURNS if turn <= turns]


def _ask_directly(
    responder: Responder,
    scorer: InstructionScorer,
    dialogues: Sequence[InstructedDialogue],
    *,
    questions: Sequence[Sequence[list[int]]],
    answers: Sequence[Sequence[SampledAnswer]],
) -> dict[str, Column]:
    """Asks about the instruction itself in place of a turn's question, in every fourth suitable dialogue.

    Such a question and its answer are not part of any history. Asking in all dialogues would cost as much as
    sampling them.
    """
    prompts: list[tuple[int, int, list[int]]] = []  # turn, index of the dialogue, ids
    suitable = [
        (index, dialogue, question)
        for index, dialogue in enumerate(dialogues)
        if (question := scorer.explicit_question(dialogue.id)) is not None
    ]
    for index, dialogue, question in suitable[::4]:
        encoded, answered = questions[index], answers[index]
        for turn in measured_turns(len(encoded)):
            if turn <= len(answered):
                history = responder.history(encoded[: turn - 1], answered[: turn - 1])
                texts = [*dialogue.questions[: turn - 1], question]
                *_, ids = responder.encode_questions(texts, dialogue.instruction)
                prompts.append((turn, index, history + ids))
    prompts = [prompt for prompt in prompts if responder.fits(prompt[2])]
    replies = responder.answer([ids for *_, ids in prompts], "direct questions")
    stated: dict[str, list[float | None]] = {
        str(turn): [None] * len(dialogues) for turn in measured_turns(len(questions[0]))
    }
    for (turn, index, _), reply in zip(prompts, replies, strict=True):
        stated[str(turn)][index] = float(scorer.explicit_answer_ok(dialogues[index].id, reply.text))
    return dict(stated)
