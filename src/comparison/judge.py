"""A judge behind an endpoint compares pairs of answers, each in both orders."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ..data.held_out import opening
from ..data.rows import Message
from ..hashes import digest
from ..judges.endpoint import ask
from ..judges.prompts import dialogue_text, fill
from ..statistics import measure
from .settings import FIRST, PROMPT, SECOND, PairJudge
from .verdicts import LOSS, TIE, WIN, Verdicts

LINE = re.compile(r"\W*verdict\W+(?:(?:the )?(?:answer|assistant) )?(a tie|tie|a|b)\W*", re.IGNORECASE)
OF_THE_FIRST = {"a": WIN, "b": LOSS, "tie": TIE}


class Pair(NamedTuple):
    """Two answers to one prompt."""

    messages: list[Message]
    first: str
    second: str


@dataclass(frozen=True)
class Judged:
    """What the judge found.

    Attributes:
        verdicts: by index of the pair; None if a verdict is missing in one of the orders.
        figures: counts and shares that `judge_pairs` lists.
    """

    verdicts: Verdicts
    figures: dict[str, Any]


def read_verdict(reply: str) -> str | None:
    """Returns the last line `Verdict: …` of a reply, or all of it if it is only a verdict: a, b or tie.

    A reply with all three has repeated the choices that it was given, and has no verdict.
    """
    lines = (match[1] for line in reply.splitlines() if (match := LINE.fullmatch(line)))
    found = [line.lower().removeprefix("a ") for line in lines] or [reply.strip().strip("*.").lower()]
    return found[-1] if found[-1] in OF_THE_FIRST and len(set(found)) < len(OF_THE_FIRST) else None


def judge_pairs(judge: PairJudge, pairs: dict[int, Pair], path: Path) -> Judged:
    """Returns the verdicts on pairs, asked once with the first answer as A and once with the second as A.

    A model wins only if it wins in both orders; different verdicts are a tie. Two equal answers are a tie
    without a question. Replies are appended to `path`, and a resumed run reuses them, see `ask`.

    Returns:
        `figures` has the numbers of `pairs`, of `identical` ones (equal answers), of pairs that are
        undecided because a reply was `unreadable` or the endpoint `rejected` a question; `inconsistent`, the
        share of asked and decided pairs with different verdicts in the two orders; `shown_first` and
        `shown_second`, the shares of all verdicts for the answer that was shown in that place (equal for a
        judge without a preference for a place); with standard errors, clustered by the pairs' prompts.

    Raises the errors of `ask`.
    """
    asked = {index: pair for index, pair in pairs.items() if pair.first != pair.second}
    orders = {
        index: (_question(judge, pair), _question(judge, _swapped(pair))) for index, pair in asked.items()
    }
    questions = {_id(text): text for both in orders.values() for text in both}
    found = ask(judge, questions, read_verdict, path=path) if questions else {}
    verdicts: dict[int, int | None] = dict.fromkeys(pairs, TIE)
    unreadable = rejected = 0
    decided: list[tuple[int, int]] = []
    groups: list[str] = []
    for index, (straight, swapped) in orders.items():
        names = [_id(straight), _id(swapped)]
        replies = [found.get(name) for name in names]
        if None in replies:
            verdicts[index] = None
            missing = any(name not in found for name in names)
            rejected, unreadable = rejected + missing, unreadable + (not missing)
            continue
        first, second = (OF_THE_FIRST[str(reply)] for reply in replies)
        decided.append((first, second))
        groups.append(opening(asked[index]))
        verdicts[index] = first if first == -second else TIE
    return Judged(
        verdicts,
        {
            "pairs": len(pairs),
            "identical": len(pairs) - len(asked),
            "unreadable": unreadable,
            "rejected": rejected,
            **_position_bias(decided, groups),
        },
    )


def _position_bias(decided: Sequence[tuple[int, int]], groups: Sequence[str]) -> dict[str, float | None]:
    """`decided`: verdicts on the answer shown first, in the one order and in the other, by pair.

    Pairs in one of the `groups` may be dependent.
    """
    both = [verdict for pair in decided for verdict in pair]
    of_both = [group for group in groups for _ in range(2)]
    return {
        **measure("inconsistent", [float(first != -second) for first, second in decided], groups),
        **measure("shown_first", [float(verdict == WIN) for verdict in both], of_both),
        **measure("shown_second", [float(verdict == LOSS) for verdict in both], of_both),
    }


def published(judge: PairJudge) -> dict[str, Any]:
    """Returns what a reader needs to repeat the judgement; the API key is not part of the settings."""
    return {
        "model": judge.model,
        "base_url": judge.base_url,
        "temperature": judge.temperature,
        "max_tokens": judge.max_tokens,
        "prompt": judge.prompt,
        "prompt_hash": digest(judge.prompt)[:16],
    }


def _question(judge: PairJudge, pair: Pair) -> str:
    texts = {PROMPT: dialogue_text(pair.messages), FIRST: pair.first, SECOND: pair.second}
    return fill(judge.prompt, texts)


def _swapped(pair: Pair) -> Pair:
    return pair._replace(first=pair.second, second=pair.first)


def _id(question: str) -> str:
    return digest(question)[:16]
