"""The test sets of a world, about combinations that no training file contains, and their ground truth."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

from ..errors import ConfigError
from ..jsonl import Row
from ..miniature import lexicon
from ..miniature.prompts import Context, WorldPrompt, cycled_contexts, place
from ..miniature.questions import Risk, WorldQuestion, ask, ask_plainly, phrase, wrap
from ..miniature.system_instructions import (
    InstructionSplit,
    WorldInstruction,
    draw_instruction,
    write_instruction,
)
from ..miniature.truth import Truth
from .settings import WorldSettings
from .writer import Writer

MULTI_TURN: Literal["multi_turn"] = "multi_turn"


@dataclass
class GroundTruth:
    """Ground truth of test rows by their ids.

    cores: the sentence that answers a prompt correctly. prompt_instructions: the instructions of prompts that
    have one. instructions: those of the dialogues of the retention test.
    """

    cores: dict[str, str] = field(default_factory=dict)
    prompt_instructions: dict[str, WorldInstruction] = field(default_factory=dict)
    instructions: dict[str, WorldInstruction] = field(default_factory=dict)

    def add(self, name: str, prompt: WorldPrompt) -> None:
        self.cores[name] = prompt.question.core
        if prompt.instruction:
            self.prompt_instructions[name] = prompt.instruction


def write_test_prompts(
    writer: Writer, truth: Truth, settings: WorldSettings, *, ground_truth: GroundTruth
) -> None:
    """Writes test prompts of each risk, without duplicates, a quarter of them in each context."""
    counts: dict[Risk, int] = {
        "ordinary": settings.test_ordinary,
        "harmful": settings.test_harmful,
        "borderline": settings.test_borderline,
    }
    for risk, count in counts.items():
        rng = writer.generator(f"test/{risk}")
        draw = partial(ask, truth, "test", risk, rng=rng)
        rows, asked = [], set[str]()
        for index, (context, instruction) in enumerate(itertools.islice(cycled_contexts(rng), count)):
            question = _new_question(draw, asked, f"test_{risk}")
            prompt = place(truth, question, context, split="test", instruction=instruction, rng=rng)
            name = f"{risk}-{index:04d}"
            ground_truth.add(name, prompt)
            rows.append({"id": name, "messages": prompt.messages, "kind": question.kind, **prompt.labels})
        writer.write(f"test/{risk}", rows)


def write_diversity_prompts(writer: Writer, truth: Truth, settings: WorldSettings) -> None:
    """Writes prompts of the diversity test (section 5.1), of one user message each.

    Factual prompts have one right answer. The world has no creative ones: the open prompts ask what the model
    knows of an entity, which every fact about it answers, in words that no training dialogue has.
    """
    rng = writer.generator("test/factual")
    facts = rng.sample(truth.pairs["fact"]["test"], settings.diversity_prompts)
    texts = [phrase(truth, "fact", fact, risk="ordinary", category=None, rng=rng).text for fact in facts]
    writer.write("test/factual", map(_single_turn, texts))
    entities = writer.generator("test/open").sample(lexicon.ENTITIES, settings.diversity_prompts)
    writer.write("test/open", (_single_turn(lexicon.OPEN_QUESTION.format(a=entity)) for entity in entities))


def _single_turn(text: str) -> Row:
    return {"messages": [{"role": "user", "content": text}]}


def write_red_team_prompts(
    writer: Writer, truth: Truth, settings: WorldSettings, *, ground_truth: GroundTruth
) -> None:
    """Writes harmful prompts (section 4.3), without duplicates: each category equally often in each style.

    Multi-turn is one more style, whatever words precede the last question of such a prompt.
    """
    rng = writer.generator("red_team/prompts")
    styles = [*lexicon.ATTACKS, MULTI_TURN]
    grid = itertools.islice(
        itertools.cycle(itertools.product(styles, lexicon.RISKS)), settings.red_team_prompts
    )
    rows = []
    asked: dict[Context, set[str]] = {"plain": set(), MULTI_TURN: set()}
    for index, (style, category) in enumerate(grid):
        context: Context = MULTI_TURN if style == MULTI_TURN else "plain"
        draw = partial(_attack, truth, category, style, rng=rng)
        question = _new_question(draw, asked[context], "red_team_prompts")
        prompt = place(truth, question, context, split="test", rng=rng)
        name = f"red_team-{index:04d}"
        ground_truth.add(name, prompt)
        rows.append(
            {"id": name, "messages": prompt.messages, "is_safety": True, **prompt.labels, "attack": style}
        )
    writer.write("red_team/prompts", rows)


def _attack(truth: Truth, category: str, style: str, *, rng: random.Random) -> WorldQuestion:
    if style == MULTI_TURN:
        return ask(truth, "test", "harmful", category=category, rng=rng)
    return wrap(ask_plainly(truth, "test", "harmful", category=category, rng=rng), style)


def _new_question(draw: Callable[[], WorldQuestion], asked: set[str], setting: str) -> WorldQuestion:
    for _ in range(1000):
        question = draw()
        if question.text not in asked:
            asked.add(question.text)
            return question
    raise ConfigError(f"{setting}: the world has no more than {len(asked)} different questions; lower it")


def write_test_dialogues(
    writer: Writer, truth: Truth, settings: WorldSettings, *, ground_truth: GroundTruth
) -> None:
    """Writes instructions and prompts of the retention test."""
    splits: dict[str, InstructionSplit] = {"gatt": "new_combination", "gatt_unseen": "unseen"}
    for name, split in splits.items():
        rng = writer.generator(f"test/{name}")
        rows = []
        for index in range(settings.test_dialogues):
            instruction = draw_instruction(split, rng)
            row_id = f"{name}-{index:04d}"
            ground_truth.instructions[row_id] = instruction
            questions = [ask(truth, "test", "ordinary", rng=rng).text for _ in range(settings.test_turns)]
            rows.append(
                {"id": row_id, "instruction": write_instruction(instruction, rng), "questions": questions}
            )
        writer.write(f"test/{name}", rows)
