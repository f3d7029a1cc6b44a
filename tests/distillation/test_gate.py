"""Which answer is the distilled one, and when the gate keeps it."""

from __future__ import annotations

import pytest

from llamita.data.rows import Prompt
from llamita.distillation.gate import Answer, Outcome
from llamita.distillation.prompts import DistilledPrompt

from ..helpers.rows import turn

PROMPT = Prompt(turn("how ?"), is_safety=True, category="illicit", attack="logic", language="french")


def outcome(original: float, generic: float, tailored: float | None = None, *, unusable: str = "") -> Outcome:
    scores = {"original": original, "generic": generic, "tailored": tailored}
    answers = {
        kind: Answer(f"the {kind} one", kind not in unusable, score)
        for kind, score in scores.items()
        if score is not None
    }
    return Outcome(DistilledPrompt(PROMPT, {"generic": "be kind ."}, {}), answers)


@pytest.mark.parametrize(
    ("given", "distilled", "kept"),
    [
        (outcome(0.4, 0.5), "generic", True),
        (outcome(0.5, 0.5), "generic", False),  # only a higher score is better
        (outcome(0.5, 0.4), "generic", False),
        (outcome(0.4, 0.9, 0.5), "tailored", True),
        (outcome(0.4, 0.9, 0.3), "tailored", False),  # the category decides, not the score
        (outcome(0.4, 0.5, 0.9, unusable="tailored"), "generic", True),
        (outcome(0.4, 0.3, 0.9, unusable="tailored"), "generic", False),
        (outcome(0.4, 0.5, unusable="generic"), None, False),
        (outcome(0.4, 0.5, 0.9, unusable="generic tailored"), None, False),
        (outcome(0.4, 0.5, unusable="original"), "generic", True),
        (outcome(0.6, 0.5, unusable="original"), "generic", False),
    ],
)
def test_the_tailored_answer_is_kept_only_above_the_original(
    given: Outcome, distilled: str | None, kept: bool
) -> None:
    assert given.distilled == distilled
    assert given.kept is kept
    assert given.ungated().text == f"the {distilled or 'original'} one"
    assert given.gated().text == (f"the {distilled} one" if kept else "the original one")


def test_rows() -> None:
    given = outcome(0.4, 0.5, 0.9)
    assert given.dialogue() == {
        "messages": turn("how ?", "the tailored one"),
        "is_safety": True,
        "category": "illicit",
        "attack": "logic",
        "language": "french",
    }
    assert given.row() == {
        **PROMPT.row(),
        "context": "plain",
        "preprompts": {"generic": "be kind ."},
        "answers": {kind: f"the {kind} one" for kind in ("original", "generic", "tailored")},
        "scores": {"original": 0.4, "generic": 0.5, "tailored": 0.9},
        "distilled": "tailored",
        "kept": True,
    }
