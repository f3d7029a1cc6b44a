"""Measures by turn whether a model follows an instruction that was given once (section 3.3, table 30).

The instruction is in the system message of the first turn; the history contains the model's own answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..measures import RETENTION_TURNS
from .attention import RecordedDialogue
from .instructed import InstructedDialogue, InstructionScorer
from .responder import Responder, SampledAnswer
from .values import Column, Figures, Values, figures

OTHER_INSTRUCTION = "~"  # in no dialogue; used to find the instruction's tokens


@dataclass(frozen=True)
class Retention:
    """Instruction following by turn.

    Attributes:
        followed: each turn -> for each dialogue 1 if its answer follows the instruction, else 0; None if the
            dialogue exceeded the context before this turn.
        stated: the same for correct answers to a direct question about the instruction, at the turns of
            `RETENTION_TURNS`; None also if it was not asked.
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
        return figures(at_measured_turns(self.followed), self.groups)

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
            "reached": count_reached(self.followed),
            "asked": {turn: _count_values(column) for turn, column in self.stated.items()},
        }


def at_measured_turns(followed: Values) -> dict[str, Column]:
    """Returns the columns of those turns that `RETENTION_TURNS` lists."""
    return {str(turn): followed[str(turn)] for turn in measured_turns(len(followed))}


def count_reached(followed: Values) -> dict[str, int]:
    """Returns the number of dialogues that reached each turn of `RETENTION_TURNS`."""
    return {turn: _count_values(column) for turn, column in at_measured_turns(followed).items()}


def _count_values(column: Column) -> int:
    return sum(value is not None for value in column)


@dataclass(frozen=True)
class AnsweredDialogues:
    """Token ids of the user turns and the model's answers, `[dialogues][turns]`.

    A dialogue that exceeds the context ends there and has fewer answers than questions. `followed` as in
    `Retention`.
    """

    questions: list[list[list[int]]]
    answers: list[list[SampledAnswer]]
    followed: dict[str, Column]


def answer_dialogues(
    responder: Responder, scorer: InstructionScorer, dialogues: Sequence[InstructedDialogue]
) -> AnsweredDialogues:
    """Samples all dialogues and scores the answers of every turn."""
    questions = [
        responder.encode_questions(dialogue.questions, dialogue.instruction) for dialogue in dialogues
    ]
    answers = responder.answer_dialogues(questions, "dialogues")
    followed: dict[str, Column] = {
        str(turn): [
            float(scorer.follows(dialogue.id, answered[turn - 1].text)) if len(answered) >= turn else None
            for dialogue, answered in zip(dialogues, answers, strict=True)
        ]
        for turn in range(1, len(dialogues[0].questions) + 1)
    }
    return AnsweredDialogues(questions, answers, followed)


def measure_retention(
    responder: Responder, scorer: InstructionScorer, dialogues: Sequence[InstructedDialogue]
) -> Retention:
    """Samples all dialogues, scores their answers, and asks directly for some of the instructions."""
    sampled = answer_dialogues(responder, scorer, dialogues)
    questions, answers = sampled.questions, sampled.answers
    return Retention(
        followed=sampled.followed,
        stated=_ask_directly(responder, scorer, dialogues, questions=questions, answers=answers),
        turns=len(dialogues[0].questions),
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
    """Returns the ids of a dialogue up to its last answer, so that they don't exceed the context.

    The instruction's span is where another instruction changes the ids.
    """
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
    end_of_last = spans[-1][1] if spans else 0  # `history` adds an EOS to a truncated answer
    return RecordedDialogue(ids[:end_of_last], (start, end), spans)


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
