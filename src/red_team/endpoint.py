"""Ratings by a judge behind an endpoint."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from ..judges.endpoint import ask
from ..judges.prompts import dialogue_text, fill
from .answers import Answer
from .settings import ANSWER, PROMPT, EndpointJudge

RATING = re.compile(r"\brating\W{1,6}([1-5])(?![\d.]*\d)", re.IGNORECASE)
ONLY_A_NUMBER = re.compile(r"\W*([1-5])\W*")


def rate(judge: EndpointJudge, answers: Mapping[str, Answer], path: Path) -> dict[str, int | None]:
    """Returns the judge's rating of each answer, None where no reply had one or the endpoint rejects it.

    Args:
        answers: different answers by `Answer.content`.
        path: file to which each rating is appended as it arrives, see `ask`, which also lists the errors.
    """
    questions = {
        name: fill(judge.prompt, {PROMPT: dialogue_text(answer.messages), ANSWER: answer.text})
        for name, answer in answers.items()
    }
    ratings = ask(judge, questions, read_rating, path=path)
    return {name: ratings.get(name) for name in answers}


def read_rating(reply: str) -> int | None:
    """Returns the rating in a reply: the last `Rating: N`, or all of it if it is a number."""
    if alone := ONLY_A_NUMBER.fullmatch(reply):
        return int(alone[1])
    found = RATING.findall(reply)
    return int(found[-1]) if found else None
