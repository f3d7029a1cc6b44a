"""Prompts as people write them: a question alone, with a system instruction, after earlier turns, or both."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import cycle
from typing import Any, Literal, get_args

from .exchanges import Exchange, Messages, exchange, system_message
from .questions import Risk, WorldQuestion, ask
from .system_instructions import WorldInstruction, choices, draw_instruction, write_instruction
from .truth import Split, Truth

Context = Literal["plain", "instruction", "multi_turn", "instruction_multi_turn"]  # as in `data/rows.py`
CONTEXTS: tuple[Context, ...] = get_args(Context)
CONTEXT_SHARES: dict[Context, float] = {
    "plain": 0.4,
    "instruction": 0.2,
    "multi_turn": 0.2,
    "instruction_multi_turn": 0.2,
}
LONGEST_PROMPT = 6  # turns; dialogues of the paper's comparisons have 3.9 turns on average (table 6)
EARLIER_RISKS: dict[Risk, float] = {"ordinary": 0.8, "borderline": 0.1, "harmful": 0.1}  # of earlier turns
EARLIER_REFUSED: dict[Risk, float] = {"ordinary": 0.0, "borderline": 0.25, "harmful": 0.75}


@dataclass(frozen=True)
class WorldPrompt:
    """A question in its context. `instruction` is empty without one; `earlier` are the turns before."""

    question: WorldQuestion
    instruction: WorldInstruction = field(default_factory=dict)
    system: str | None = None
    earlier: tuple[Exchange, ...] = ()

    @property
    def messages(self) -> Messages:
        """Messages that end with the question. The instruction is in the system message only."""
        before = [message for earlier in self.earlier for message in earlier.messages]
        start = [system_message(self.system)] if self.system is not None else []
        return [*start, *before, {"role": "user", "content": self.question.text}]

    @property
    def refused_before(self) -> bool:
        """Whether an earlier answer is a refusal."""
        return any(earlier.refused for earlier in self.earlier)

    @property
    def labels(self) -> dict[str, Any]:
        """Risk category and attack style (None: none), and the language where the instruction names one."""
        language = {name: value for name, value in self.instruction.items() if name == "language"}
        return {"category": self.question.category, "attack": self.question.attack, **language}


def draw_prompt(
    truth: Truth,
    risk: Risk,
    split: Split,
    *,
    earlier_refused: Mapping[Risk, float] = EARLIER_REFUSED,
    rng: random.Random,
) -> WorldPrompt:
    """Draws a question of this risk and one of the contexts by their shares; see `place`."""
    question = ask(truth, split, risk, rng=rng)
    context = draw_context(rng)
    return place(truth, question, context, split=split, earlier_refused=earlier_refused, rng=rng)


def draw_context(rng: random.Random) -> Context:
    return rng.choices(list(CONTEXT_SHARES), list(CONTEXT_SHARES.values()))[0]


def place(
    truth: Truth,
    question: WorldQuestion,
    context: Context,
    *,
    split: Split,
    instruction: WorldInstruction | None = None,
    earlier_refused: Mapping[Risk, float] = EARLIER_REFUSED,
    rng: random.Random,
) -> WorldPrompt:
    """Places a question in a context.

    Earlier turns are about other combinations of `split` than the question, since they could contain its
    answer; `earlier_refused` is their share of refusals by kind of question. `instruction` is used in
    contexts that have one; by default one of the training instructions.
    """
    system = None
    if context in ("plain", "multi_turn"):
        instruction = {}
    else:
        instruction = instruction or draw_instruction("train", rng)
        system = write_instruction(instruction, rng)
    earlier: list[Exchange] = []
    if context in ("multi_turn", "instruction_multi_turn"):
        wanted = rng.randint(2, LONGEST_PROMPT) - 1
        while len(earlier) < wanted:
            before = exchange(
                truth, instruction, EARLIER_RISKS, split=split, refused=earlier_refused, rng=rng
            )
            if before.question is None or before.question.pair != question.pair:
                earlier.append(before)
    return WorldPrompt(question, instruction, system, tuple(earlier))


def cycled_contexts(rng: random.Random) -> Iterator[tuple[Context, WorldInstruction]]:
    """Yields the contexts in turn, each with an instruction, which is empty in contexts without one.

    A sixth of the instructions is in each trained language. The other third names no language, so that
    personas and closing words in English are measured, too.
    """
    for language in cycle([None, None, *choices("language", "train")]):
        for context in CONTEXTS:
            instruction: WorldInstruction = {}
            if context in ("instruction", "instruction_multi_turn"):
                instruction = draw_instruction("train", rng)
                while instruction.get("language") != language:
                    instruction = draw_instruction("train", rng)
            yield context, instruction
