"""System instructions that code can check: persona, hobby, language, closing word, alone and combined."""

from __future__ import annotations

import itertools
import random
from typing import Literal

from . import lexicon
from .truth import TEST_EVERY

WorldInstruction = dict[str, str]  # attribute -> value
InstructionSplit = Literal["train", "new_combination", "unseen"]
VALUES = {
    "figure": lexicon.FIGURES,
    "hobby": lexicon.HOBBIES,
    "language": list(lexicon.LANGUAGES),
    "closing": lexicon.CLOSINGS,
}
BINDING = ("figure", "language", "closing")  # a hobby shows only when asked for
SIZES = {1: 0.4, 2: 0.4, 3: 0.2}  # how many attributes an instruction combines -> share
SHORTENED_SHARE = 0.5


def draw_instruction(split: InstructionSplit, rng: random.Random) -> WorldInstruction:
    """Draws attributes and values of which at least one binds every answer.

    train: values that training may use, in combinations that training may use. new_combination: the same
    values, two or more, every two of them a combination that training never has. unseen: values that
    stand in no training instruction.
    """
    while True:
        size = rng.choices(list(SIZES), list(SIZES.values()))[0]
        instruction = {name: rng.choice(_choices(name, split)) for name in rng.sample(list(VALUES), size)}
        if not set(instruction) & set(BINDING):
            continue
        kept_apart = [_kept_apart(one, two) for one, two in itertools.combinations(instruction.items(), 2)]
        if split == "unseen" or (split == "train" and not any(kept_apart)):
            return instruction
        if split == "new_combination" and size > 1 and all(kept_apart):
            return instruction


def _choices(attribute: str, split: InstructionSplit) -> list[str]:
    unseen = lexicon.UNSEEN[attribute]
    return VALUES[attribute][-unseen:] if split == "unseen" else VALUES[attribute][:-unseen]


def _kept_apart(one: tuple[str, str], two: tuple[str, str]) -> bool:
    """Whether this combination of two values belongs to the test."""
    return sum(VALUES[name].index(value) for name, value in (one, two)) % TEST_EVERY == 0


def write_instruction(instruction: WorldInstruction, rng: random.Random) -> str:
    """Words the instruction, half of the time shortened ("figure : napoleon .", section 3.3)."""
    form = int(rng.random() < SHORTENED_SHARE)
    return " ".join(
        lexicon.INSTRUCTIONS[name][form].format(value=value) for name, value in instruction.items()
    )
