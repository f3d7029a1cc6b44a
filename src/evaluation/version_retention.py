"""Instruction following of every version over the turns of a dialogue, compared with that of `sft`."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ..console import say
from ..distributed.cached import cached_folder
from ..jsonl import Row, write_rows
from ..measures import AVERAGED_TURNS, empty_version_retention
from ..miniature.gold import Gold
from .instructed import InstructedDialogue, InstructedTests, InstructionChecks
from .responder import Models
from .retention import answer_dialogues, at_measured_turns, count_reached
from .settings import EvaluateSettings
from .values import Column, Values, figures, subtract
from .versions import SFT, Version

DIALOGUES = "dialogues.jsonl"


@dataclass(frozen=True)
class RetentionTest:
    """The test that all versions take: they share its dialogues and draws."""

    settings: EvaluateSettings
    models: Models
    tests: InstructedTests
    gold: Gold | None

    @property
    def needs_sft(self) -> bool:
        """Whether `sft` must be sampled for this; otherwise its dialogues of Ghost Attention suffice.

        Answers are drawn by dialogue and turn, so the first turns of the first dialogues are the same.
        """
        settings = self.tests.settings
        return (
            settings.turns_for_versions > settings.turns
            or settings.dialogues_for_versions > settings.dialogues
        )

    def run(self, version: Version, out: Path) -> Values:
        """Returns for each turn whether each dialogue's answer follows the instruction.

        The dialogues are stored in the folder `out`; a resumed run reuses them.
        """
        followed: Values = cached_folder(out, partial(self._measure, version))["followed"]
        report_outgrown(version.name, followed)
        return followed

    def _measure(self, version: Version, out: Path) -> Row:
        dialogues, tokenizer = self.tests.for_versions, self.models.tokenizer
        say(f"{version.name}: sampling {len(dialogues):,} dialogues")
        responder = self.models.responder(version.folder, tokenizer)
        sampled = answer_dialogues(responder, self.gold or InstructionChecks(dialogues), dialogues)
        texts = (
            tokenizer.decode(responder.history(questions[: len(answers)], answers))
            for questions, answers in zip(sampled.questions, sampled.answers, strict=True)
        )
        write_rows(out / DIALOGUES, ({"text": text} for text in texts))
        return {"followed": sampled.followed}


def compare_retention(
    followed: Mapping[str, Values], dialogues: Sequence[InstructedDialogue]
) -> dict[str, dict[str, Any]]:
    """Returns the keys `version_retention` and `version_retention_differences` of the evaluation.

    Args:
        followed: for each version and turn, whether each dialogue's answer follows the instruction; None
            where the dialogue exceeded the context. Values of further dialogues or turns are ignored.
        dialogues: the dialogues to count.
    """
    groups = [dialogue.instruction for dialogue in dialogues]
    turns = len(dialogues[0].questions)
    values = {name: _values(columns, len(dialogues), turns) for name, columns in followed.items()}
    return {
        "version_retention": {
            name: empty_version_retention() | figures(columns, groups) for name, columns in values.items()
        },
        "version_retention_differences": {
            name: empty_version_retention() | figures(subtract(columns, values[SFT], columns), groups)
            for name, columns in values.items()
            if name != SFT
        },
    }


def _values(followed: Values, count: int, turns: int) -> Values:
    """Returns the measured turns of the first dialogues, and the mean of each dialogue over its first turns.

    The mean is None for a dialogue that did not reach the last of them.
    """
    columns = {str(turn): followed[str(turn)][:count] for turn in range(1, turns + 1)}
    values = at_measured_turns(columns)
    if turns >= AVERAGED_TURNS:
        first = [columns[str(turn)] for turn in range(1, AVERAGED_TURNS + 1)]
        values[f"1-{AVERAGED_TURNS}"] = [_mean(row) for row in zip(*first, strict=True)]
    return values


def _mean(row: Sequence[float | None]) -> float | None:
    known = [value for value in row if value is not None]
    return statistics.fmean(known) if len(known) == len(row) else None


def report_outgrown(name: str, followed: Values) -> None:
    """Warns that later turns are measured only on dialogues that did not exceed the context."""
    columns: list[Column] = list(followed.values())
    started, outgrown = len(columns[-1]), sum(value is None for value in columns[-1])
    if outgrown:
        by_turn = ", ".join(f"turn {turn}: {reached:,}" for turn, reached in count_reached(followed).items())
        say(
            f"warning: retention {name}: {outgrown:,} of {started:,} dialogues exceeded the context length; "
            f"a rate counts only dialogues that reached its turn ({by_turn})"
        )
