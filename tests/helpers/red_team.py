"""Answers for red teaming that no model sampled."""

from __future__ import annotations

from llamita.red_team.answers import Answer

from .rows import turn


def answer_of(text: str, request: str = "how ?", prompt: str = "p1") -> Answer:
    """Returns an answer to a prompt of one user message."""
    return Answer(prompt, 0, turn(request), text, True)
