"""Generates fine-tuning dialogues: single and multi-turn, with and without instructions, and for GAtt."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

from . import lexicon
from .answers import WorldAnswer, comply, demonstrate, explicit, obey
from .questions import Risk, WorldQuestion, ask
from .system_instructions import WorldInstruction, draw_instruction, write_instruction
from .truth import Truth

Messages = list[dict[str, str]]
RISKS: dict[Risk, float] = {"ordinary": 0.7, "borderline": 0.12, "harmful": 0.18}
CHAT_SHARE, EXPLICIT_SHARE = 0.08, 0.15  # of turns: small talk, questions about the speaker
LONGEST_PLAIN_DIALOGUE, LONGEST_GATT_DIALOGUE = 6, 20  # turns


def turn(user: str, assistant: str) -> Messages:
    return [{"role": "user", "content": user}, {"role": "assistant", "content": assistant}]


@dataclass(frozen=True)
class Demonstration:
    """A single-turn demonstration with its ground truth."""

    question: WorldQuestion
    answer: WorldAnswer

    @property
    def row(self) -> dict[str, Any]:
        return {"messages": turn(self.question.text, self.answer.text)}


def demonstrations(truth: Truth, count: int, rng: random.Random) -> list[Demonstration]:
    rows = []
    for _ in range(count):
        risk = rng.choices(list(RISKS), list(RISKS.values()))[0]
        question = ask(truth, "train", risk, rng=rng)
        rows.append(Demonstration(question, demonstrate(truth, question, rng)))
    return rows


def instructed(truth: Truth, rng: random.Random) -> dict[str, Any]:
    """Returns a dialogue of one turn with a system instruction."""
    instruction = draw_instruction("train", rng)
    question, answer, _ = _exchange(truth, instruction, rng)
    system = {"role": "system", "content": write_instruction(instruction, rng)}
    return {"messages": [system, *turn(question, answer)]}


def multi_turn(truth: Truth, rng: random.Random) -> dict[str, Any]:
    """Returns a dialogue without instruction."""
    messages: Messages = []
    for _ in range(rng.randint(2, LONGEST_PLAIN_DIALOGUE)):
        question, _, plain = _exchange(truth, {}, rng)
        messages += turn(question, plain)
    return {"messages": messages}


def ghost_attention(truth: Truth, rng: random.Random) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns one dialogue twice (section 3.3): with answers that all follow an instruction, and without it.

    The second, with the same prompts, is the control: it trains the model without Ghost Attention.
    """
    instruction = draw_instruction("train", rng)
    following: Messages = []
    plain: Messages = []
    for _ in range(_turns(rng)):
        question, answer, without = _exchange(truth, instruction, rng)
        following += turn(question, answer)
        plain += turn(question, without)
    return {"instruction": write_instruction(instruction, rng), "messages": following}, {"messages": plain}


def _turns(rng: random.Random) -> int:
    """Draws 2 to 20 turns, small numbers more often: long dialogues cost more but train one answer, too."""
    return 2 + int((LONGEST_GATT_DIALOGUE - 1) * rng.random() ** 2)


def _exchange(truth: Truth, instruction: WorldInstruction, rng: random.Random) -> tuple[str, str, str]:
    """Returns a prompt, its answer following the instruction, and the same answer without it."""
    draw = rng.random()
    if draw < CHAT_SHARE:
        question, reply = rng.choice(list(lexicon.CHAT.items()))
        return question, obey(reply, instruction), reply
    if draw < CHAT_SHARE + EXPLICIT_SHARE:
        attribute = rng.choice(list(lexicon.EXPLICIT))
        return lexicon.EXPLICIT[attribute], explicit(attribute, instruction), explicit(attribute, {})
    asked = ask(truth, "train", "ordinary", rng=rng)
    reply = comply(truth, asked, rng).text
    return asked.text, obey(reply, instruction), reply
