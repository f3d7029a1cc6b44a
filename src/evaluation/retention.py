"""Ghost Attention retention: how long an instruction given once is kept in the model's own dialogues.

The instruction stands in the system message of the first turn; the model's own answers stay in the history
(section 3.3, table 30).
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
ANOTHER = "~"  # an instruction that no dialogue has


class InstructionJudge(Protocol):
    """What retention needs of the world's gold scorers."""

    def follows(self, row_id: str, answer: str) -> bool: ...

    def explicit_question(self, row_id: str) -> str | None: ...

    def explicit_answer_ok(self, row_id: str, answer: str) -> bool: ...


@dataclass(frozen=True)
class InstructedDialogue:
    """An instruction, one question for each turn, and what the answers can be checked for, if code can."""

    id: str
    instruction: str
    questions: list[str]
    check: Instruction | None = None


class CheckedByCode:
    """Judges answers by the instructions' own checks, where no truth is known.

    Raises DataError for a dialogue without a check.
    """

    def __init__(self, dialogues: Sequence[InstructedDialogue]) -> None:
        self._checks: dict[str, Instruction] = {}
        for one in dialogues:
            if one.check is None:
                raise DataError(
                    f"retention test row {one.id!r} has no `check`, and there are no gold scorers; expected "
                    "the test.jsonl of a stage gatt, or gold: true"
                )
            self._checks[one.id] = one.check

    def follows(self, row_id: str, answer: str) -> bool:
        return self._checks[row_id].is_followed_by(answer)

    def explicit_question(self, row_id: str) -> str | None:
        return None

    def explicit_answer_ok(self, row_id: str, answer: str) -> bool:
        raise NotImplementedError("nothing is asked outright")


@dataclass(frozen=True)
class Retention:
    """What the dialogues show, turn by turn.

    Attributes:
        kept: turn -> for each dialogue 1 if its answer keeps the instruction, else 0; None if the dialogue
            outgrew the context before this turn.
        known: the same of answers to a direct question for the instruction; None also if it was not asked.
        turns: of a dialogue that did not outgrow the context.
        groups: the instruction of each dialogue; those with equal ones may depend on each other.
        held: the dialogues themselves.
    """

    kept: dict[str, Column]
    known: dict[str, Column]
    turns: int
    groups: list[str]
    held: list[RecordedDialogue]

    @property
    def implicit(self) -> Figures:
        """Shares by turn of the dialogues that reached it, with standard errors: `{"1": …, "1_se": …, …}`."""
        return figures(self.kept, self.groups)

    @property
    def explicit(self) -> Figures:
        """The same of the answers to direct questions."""
        return figures(self.known, self.groups)

    @property
    def counts(self) -> dict[str, Any]:
        """Dialogues started, those that outgrew the context, and by turn what the shares are taken of."""
        reached = {turn: _known(column) for turn, column in self.kept.items()}
        return {
            "started": len(self.held),
            "outgrown": sum(len(one.answers) < self.turns for one in self.held),
            "reached": reached,
            "asked": {turn: _known(column) for turn, column in self.known.items()},
        }


def _known(column: Column) -> int:
    return sum(value is not None for value in column)


def read_instructed(
    path: str, data: Path, limit: int, *, turns: int = RETENTION_TURNS[-1], intake: Intake | None = None
) -> list[InstructedDialogue]:
    """The first `limit` rows of a retention test. Raises DataError: a bad row, too few turns or rows."""
    intake = intake or Intake()
    format = Format(partial(_instructed, turns, intake), records, FIELDS)
    source = Source(path=path, format="instructed")
    dialogues = list(stream([source], data, {source.format: format}, intake=intake))
    if len(dialogues) < limit:
        raise DataError(f"{data / path}: {len(dialogues)} dialogues; expected at least {limit}")
    return dialogues[:limit]


def _instructed(turns: int, intake: Intake, row: Mapping[str, Any]) -> InstructedDialogue:
    questions = field(row, "questions", list) or []
    if len(questions) < turns or not all(isinstance(one, str) for one in questions):
        raise DataError(f"{len(questions)} questions; expected a list of {turns} texts or more")
    check, instruction = field(row, "check", dict), text_field(row, "instruction")
    for question in questions[:turns]:
        asked = [Message(role="system", content=instruction), Message(role="user", content=question)]
        intake.check(Prompt(asked))
    return InstructedDialogue(
        text_field(row, "id"),
        instruction,
        questions[:turns],
        None if check is None else read_instruction(check),
    )


def measure_retention(
    speaker: Responder, judge: InstructionJudge, dialogues: Sequence[InstructedDialogue]
) -> Retention:
    """Lets the model hold all dialogues, and judges its answers at the turns of `RETENTION_TURNS`.

    A dialogue that outgrows the context ends there: it is counted, and left out of the shares of later turns.
    """
    turns = len(dialogues[0].questions)
    questions = [speaker.encode_questions(one.questions, one.instruction) for one in dialogues]
    answers = speaker.converse(questions, "dialogues")
    kept: dict[str, Column] = {
        str(turn): [
            float(judge.follows(one.id, said[turn - 1].text)) if len(said) >= turn else None
            for one, said in zip(dialogues, answers, strict=True)
        ]
        for turn in measured_turns(turns)
    }
    return Retention(
        kept=kept,
        known=_ask_outright(speaker, judge, dialogues, questions=questions, answers=answers),
        turns=turns,
        groups=[one.instruction for one in dialogues],
        held=[
            _held(speaker, one, asked, answers=said)
            for one, asked, said in zip(dialogues, questions, answers, strict=True)
        ],
    )


def _held(
    speaker: Responder,
    one: InstructedDialogue,
    questions: Sequence[list[int]],
    *,
    answers: Sequence[SampledAnswer],
) -> RecordedDialogue:
    """The dialogue so far; its instruction stands where another one would have given other ids."""
    (asked,), (other,) = (
        speaker.encode_questions(one.questions[:1], text) for text in (one.instruction, ANOTHER)
    )
    start = _alike(asked, other)
    end = len(asked) - _alike(asked[start:][::-1], other[start:][::-1])
    spans = []
    for turn, answer in enumerate(answers):
        before = len(speaker.history(questions[:turn], answers[:turn])) + len(questions[turn])
        spans.append((before, before + len(answer.ids)))
    ids = speaker.history(questions[: len(answers)], answers)
    return RecordedDialogue(ids, (start, end), spans)


def _alike(one: Sequence[int], other: Sequence[int]) -> int:
    """How many ids two rows have in common from their beginning on."""
    pairs = zip(one, other, strict=False)
    return next((at for at, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))


def measured_turns(turns: int) -> list[int]:
    """At which of so many turns instructions are looked for."""
    return [turn for turn in RETENTION_TURNS if turn <= turns]


def _ask_outright(
    speaker: Responder,
    judge: InstructionJudge,
    dialogues: Sequence[InstructedDialogue],
    *,
    questions: Sequence[Sequence[list[int]]],
    answers: Sequence[Sequence[SampledAnswer]],
) -> dict[str, Column]:
    """Asks for the instruction itself in place of a turn's question, in every fourth dialogue that has one.

    Such a question and its answer enter no history; asking all would cost as much as the dialogues do.
    """
    prompts: list[tuple[int, int, list[int]]] = []  # turn, place of the dialogue, ids
    askable = [
        (place, one, outright)
        for place, one in enumerate(dialogues)
        if (outright := judge.explicit_question(one.id)) is not None
    ]
    for place, one, outright in askable[::4]:
        asked, said = questions[place], answers[place]
        for turn in measured_turns(len(asked)):
            if turn <= len(said):
                history = speaker.history(asked[: turn - 1], said[: turn - 1])
                *_, ids = speaker.encode_questions([*one.questions[: turn - 1], outright], one.instruction)
                prompts.append((turn, place, history + ids))
    prompts = [prompt for prompt in prompts if speaker.fits(prompt[2])]
    replies = speaker.ask([ids for *_, ids in prompts], "asked outright")
    known: dict[str, list[float | None]] = {
        str(turn): [None] * len(dialogues) for turn in measured_turns(len(questions[0]))
    }
    for (turn, place, _), reply in zip(prompts, replies, strict=True):
        known[str(turn)][place] = float(judge.explicit_answer_ok(dialogues[place].id, reply.text))
    return dict(known)
