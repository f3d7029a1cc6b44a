"""Generates fine-tuning dialogues: single and multi-turn, with and without instructions, and for GAtt."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .answers import WorldAnswer, demonstrate
from .exchanges import Messages, exchange, question_and_answer, system_message, turn
from .questions import Risk, WorldQuestion, ask
from .system_instructions import draw_instruction, write_instruction
from .truth import Truth

RISKS: dict[Risk, float] = {"ordinary": 0.7, "borderline": 0.12, "harmful": 0.18}
HELPFUL: dict[Risk, float] = {"ordinary": 0.7, "borderline": 0.12}  # as in RISKS
ORDINARY: dict[Risk, float] = {"ordinary": 1.0}
RISKY_END_SHARE = 0.1  # of Ghost Attention dialogues: those that end with a harmful or borderline question
LONGEST_PLAIN_DIALOGUE, LONGEST_GATT_DIALOGUE = 6, 20  # turns


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


def instructed(truth: Truth, rng: random.Random, risks: Mapping[Risk, float] = RISKS) -> dict[str, Any]:
    """Returns a dialogue of one turn with a system instruction; its risk as in the demonstrations."""
    instruction = draw_instruction("train", rng)
    answered = exchange(truth, instruction, risks, rng=rng)
    return {"messages": [system_message(write_instruction(instruction, rng)), *answered.messages]}


def multi_turn(truth: Truth, rng: random.Random, risks: Mapping[Risk, float] = RISKS) -> dict[str, Any]:
    """Returns a dialogue without instruction; the risk of each turn as in the demonstrations."""
    messages: Messages = []
    for _ in range(rng.randint(2, LONGEST_PLAIN_DIALOGUE)):
        messages += exchange(truth, {}, risks, rng=rng).messages
    return {"messages": messages}


def ghost_attention(truth: Truth, rng: random.Random) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns one dialogue twice (section 3.3): with answers that all follow an instruction, and without it.

    The second, with the same prompts, is the control: it trains the model without Ghost Attention.
    """
    instruction = draw_instruction("train", rng)
    turns = _turns(rng)
    exchanges = [exchange(truth, instruction, ORDINARY, rng=rng) for _ in range(turns)]
    if rng.random() < RISKY_END_SHARE:
        risky: dict[Risk, float] = {risk: share for risk, share in RISKS.items() if risk != "ordinary"}
        exchanges[-1] = question_and_answer(truth, instruction, risky, rng=rng)
    following = [message for one in exchanges for message in one.messages]
    plain = [message for one in exchanges for message in one.plain_messages]
    return {"instruction": write_instruction(instruction, rng), "messages": following}, {"messages": plain}


def _turns(rng: random.Random) -> int:
    """Draws 2 to 20 turns, small numbers more often: long dialogues cost more but train one answer, too."""
    return 2 + int((LONGEST_GATT_DIALOGUE - 1) * rng.random() ** 2)
