"""Comparisons that teach a helpfulness model what an evasion costs ("I don't know", "I can't help").

The paper's annotators compare samples of its models, evasions among them. Public comparisons of other models'
answers contain few, so a reward model that was trained on them alone may prefer an evasion to an attempt.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from ..console import say
from ..data.held_out import opening
from ..data.intake import Intake
from ..data.rows import Comparison
from ..data.sources import read_dialogues, read_labelled_answers
from ..errors import DataError
from .settings import EvasionSettings

T = TypeVar("T")


def evasive_comparisons(
    settings: EvasionSettings, root: Path, answers_root: Path, *, seed: int, intake: Intake
) -> list[Comparison]:
    """One comparison per prompt of the dialogues: the reference answer is chosen over a drawn refusal.

    A dialogue is skipped if its reference answer is one of the refusals. Of dialogues with the same first
    message one is used, so that prompts can be held out.
    Raises DataError if no labelled answer is a refusal.
    """
    dialogues = read_dialogues(settings.dialogues, root, intake)
    refusals = [
        row.answer for row in read_labelled_answers(settings.answers, answers_root, intake) if row.refusal
    ]
    if not refusals:
        raise DataError(
            f"evasions.answers: none of the answers in {', '.join(one.path for one in settings.answers)} is "
            "labelled as a refusal; expected rows with `refusal: true`"
        )
    known = {refusal.strip() for refusal in refusals}
    comparisons: dict[str, Comparison] = {}
    for dialogue in dialogues:
        *prompt, reference = dialogue.messages
        if reference["content"].strip() in known:
            intake.skipped["evasions: the reference answer is a refusal"] += 1
            continue
        key = opening(dialogue)
        refusal = random.Random(f"{seed}/evasions/{key}").choice(refusals)
        comparisons.setdefault(
            key, Comparison(prompt, reference["content"], refusal, rating="significantly_better")
        )
    return list(comparisons.values())


def sample_evasions(settings: EvasionSettings, rows: Sequence[T], seed: int) -> tuple[list[T], list[T]]:
    """Draws `count` rows for training and `held_out` others; fewer for training if there are not enough.

    Raises DataError if none is left for training.
    """
    wanted = settings.count + settings.held_out
    if len(rows) <= settings.held_out:
        raise DataError(
            f"evasions: {len(rows):,} usable prompts, of which held_out: {settings.held_out} are held out; "
            "add dialogues or lower held_out"
        )
    if len(rows) < wanted:
        say(f"evasions: only {len(rows):,} usable prompts; count and held_out need {wanted:,}")
    drawn = random.Random(f"{seed}/evasions").sample(rows, min(wanted, len(rows)))
    return drawn[settings.held_out :], drawn[: settings.held_out]
