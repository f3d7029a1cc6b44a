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
BINDING = ("figure", "language", "closing")  # a hobby affects only answers to a question about it
SIZES = {1: 0.4, 2: 0.4, 3: 0.2}  # number of attributes in an instruction -> share
SHORTENED_SHARE = 0.5


def draw_instruction(split: InstructionSplit, rng: random.Random) -> WorldInstruction:
    """Draws attributes and values, at least one of which affects every answer.

    train: training values in training combinations. new_combination: two or more training values, of which
    each pair is a test combination. unseen: values that no training instruction contains.
    """
    while True:
        size = rng.choices(list(SIZES), list(SIZES.values()))[0]
        instruction = {name: rng.choice(choices(name, split)) for name in rng.sample(list(VALUES), size)}
        if not set(instruction) & set(BINDING):
            continue
        in_test = [
            _in_test(first, second) for first, second in itertools.combinations(instruction.items(), 2)
        ]
        if split == "unseen" or (split == "train" and not any(in_test)):
            return instruction
        if split == "new_combination" and size > 1 and all(in_test):
            return instruction


def choices(attribute: str, split: InstructionSplit) -> list[str]:
    """Returns the values that instructions of this split may have."""
    unseen = lexicon.UNSEEN[attribute]
    return VALUES[attribute][-unseen:] if split == "unseen" else VALUES[attribute][:-unseen]


def _in_test(first: tuple[str, str], second: tuple[str, str]) -> bool:
    """Whether this combination of two values belongs to the test."""
    return sum(VALUES[name].index(value) for name, value in (first, second)) % TEST_EVERY == 0


def write_instruction(instruction: WorldInstruction, rng: random.Random) -> str:
    """Writes the instruction as text, half of the time in short form ("figure : napoleon .", section 3.3)."""
    form = int(rng.random() < SHORTENED_SHARE)
    return " ".join(
        lexicon.INSTRUCTIONS[name][form].format(value=value) for name, value in instruction.items()
    )
