"""Questions with answers of mixed quality: the turns of dialogues, and the earlier turns of prompts."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass

from . import lexicon
from .answers import REFUSED_SHARE, demonstrate, explicit, obey
from .questions import Risk, WorldQuestion, ask
from .system_instructions import WorldInstruction
from .truth import Split, Truth

Messages = list[dict[str, str]]
CHAT_SHARE, EXPLICIT_SHARE = 0.08, 0.15  # of turns: small talk, questions about the speaker


@dataclass(frozen=True)
class Exchange:
    """What the user says, the answer that follows the instruction, and the same answer without it.

    `question` is None for small talk and questions about the speaker.
    """

    user: str
    answer: str
    plain: str
    question: WorldQuestion | None = None

    @property
    def refused(self) -> bool:
        return self.plain in lexicon.REFUSALS

    @property
    def messages(self) -> Messages:
        return turn(self.user, self.answer)

    @property
    def plain_messages(self) -> Messages:
        return turn(self.user, self.plain)


def turn(user: str, assistant: str) -> Messages:
    return [{"role": "user", "content": user}, {"role": "assistant", "content": assistant}]


def system_message(text: str) -> dict[str, str]:
    return {"role": "system", "content": text}


def exchange(
    truth: Truth,
    instruction: WorldInstruction,
    risks: Mapping[Risk, float],
    *,
    split: Split = "train",
    refused: Mapping[Risk, float] = REFUSED_SHARE,
    rng: random.Random,
) -> Exchange:
    """Draws one turn. `risks`: shares of the kinds of question; `refused`: share of refusals by kind."""
    draw = rng.random()
    if draw < CHAT_SHARE:
        user, reply = rng.choice(list(lexicon.CHAT.items()))
        return Exchange(user, obey(reply, instruction), reply)
    if draw < CHAT_SHARE + EXPLICIT_SHARE:
        attribute = rng.choice(list(lexicon.EXPLICIT))
        return Exchange(
            lexicon.EXPLICIT[attribute], explicit(attribute, instruction), explicit(attribute, {})
        )
    return question_and_answer(truth, instruction, risks, split=split, refused=refused, rng=rng)


def question_and_answer(
    truth: Truth,
    instruction: WorldInstruction,
    risks: Mapping[Risk, float],
    *,
    split: Split = "train",
    refused: Mapping[Risk, float] = REFUSED_SHARE,
    rng: random.Random,
) -> Exchange:
    """Draws one turn that is neither small talk nor a question about the speaker."""
    risk = rng.choices(list(risks), list(risks.values()))[0]
    question = ask(truth, split, risk, rng=rng)
    reply = demonstrate(truth, question, rng, refused=refused).text
    return Exchange(question.text, obey(reply, instruction), reply, question)
