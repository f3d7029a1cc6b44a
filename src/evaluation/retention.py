"""Ghost Attention retention: how long an instruction given once is kept in the model's own dialogues.

The instruction stands in the system message of the first turn; the model's own answers stay in the history
(section 3.3, table 30).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ..config import Source
from ..data.reading import field, records, text_field
from ..errors import DataError
from .keys import RETENTION_TURNS
from .speaker import Speaker
from .statistics import measure


class Judge(Protocol):
    """What retention needs of the world's gold scorers."""

    def keeps(self, row_id: str, answer: str) -> bool: ...

    def explicit_question(self, row_id: str) -> str | None: ...

    def explicit_answer_ok(self, row_id: str, answer: str) -> bool: ...


@dataclass(frozen=True)
class InstructedDialogue:
    """An instruction, and one question for each turn."""

    id: str
    instruction: str
    questions: list[str]


@dataclass(frozen=True)
class Retention:
    """Shares of dialogues by turn, with standard errors; `{"1": …, "1_se": …, "2": …}`.

    Attributes:
        implicit: whose answer keeps the instruction.
        explicit: who know the instruction when asked outright instead.
        counts: dialogues started, and those that outgrew the context before the last turn.
    """

    implicit: dict[str, float | None]
    explicit: dict[str, float | None]
    counts: dict[str, int]


def read_instructed(path: str, data: Path, limit: int) -> list[InstructedDialogue]:
    """The first `limit` rows of a retention test. Raises DataError: a broken row, too few turns or rows."""
    dialogues = []
    for where, row in records(Source(path=path, format="instructed"), data):
        try:
            dialogues.append(_instructed(row))
        except DataError as error:
            raise DataError(f"{where}: {error}") from None
        if len(dialogues) == limit:
            return dialogues
    raise DataError(f"{data / path}: {len(dialogues)} dialogues; expected at least {limit}")


def _instructed(row: Mapping[str, Any]) -> InstructedDialogue:
    questions = field(row, "questions", list) or []
    if len(questions) < RETENTION_TURNS[-1] or not all(isinstance(one, str) for one in questions):
        raise DataError(f"{len(questions)} questions; expected a list of {RETENTION_TURNS[-1]} texts or more")
    return InstructedDialogue(text_field(row, "id"), text_field(row, "instruction"), questions)


def measure_retention(speaker: Speaker, judge: Judge, dialogues: Sequence[InstructedDialogue]) -> Retention:
    """Lets the model hold all dialogues side by side, judging its answers at the turns of `RETENTION_TURNS`.

    A dialogue that outgrows the context ends there: it is counted, and left out of the shares of later turns.
    """
    histories: dict[int, list[int]] = {index: [] for index in range(len(dialogues))}
    implicit: dict[str, float | None] = {}
    explicit: dict[str, float | None] = {}
    for turn in range(1, RETENTION_TURNS[-1] + 1):
        prompts = {
            index: history + _turn(speaker, dialogues[index], turn, dialogues[index].questions[turn - 1])
            for index, history in histories.items()
        }
        prompts = {index: prompt for index, prompt in prompts.items() if speaker.fits(prompt)}
        answers = [answer.text for answer in speaker.ask(list(prompts.values()), f"turn {turn}")]
        if turn in RETENTION_TURNS:
            asked = {index: histories[index] for index in prompts}
            explicit |= measure(str(turn), _ask_outright(speaker, judge, dialogues, asked, turn))
            kept = [
                judge.keeps(dialogues[index].id, text) for index, text in zip(prompts, answers, strict=True)
            ]
            implicit |= measure(str(turn), kept)
        histories = {
            index: prompts[index] + speaker.encode_reply(text)
            for index, text in zip(prompts, answers, strict=True)
        }
    return Retention(
        implicit, explicit, {"started": len(dialogues), "outgrown": len(dialogues) - len(histories)}
    )


def _ask_outright(
    speaker: Speaker,
    judge: Judge,
    dialogues: Sequence[InstructedDialogue],
    histories: Mapping[int, list[int]],
    turn: int,
) -> list[bool]:
    """Asks for the instruction in place of the turn's question, where it can be; no history keeps it."""
    asked = {index: judge.explicit_question(dialogues[index].id) for index in histories}
    prompts = {
        index: histories[index] + _turn(speaker, dialogues[index], turn, question)
        for index, question in asked.items()
        if question is not None
    }
    prompts = {index: prompt for index, prompt in prompts.items() if speaker.fits(prompt)}
    answers = speaker.ask(list(prompts.values()), f"turn {turn}, asked outright")
    return [
        judge.explicit_answer_ok(dialogues[index].id, answer.text)
        for index, answer in zip(prompts, answers, strict=True)
    ]


def _turn(speaker: Speaker, dialogue: InstructedDialogue, turn: int, question: str) -> list[int]:
    """The turn's ids; every turn is encoded alone, as Llama 2's chat format is made of whole turns."""
    return speaker.encode_question(question, dialogue.instruction if turn == 1 else None)
