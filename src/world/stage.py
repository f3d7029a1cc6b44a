"""The stage `world`: writes all data sets of one miniature world, and its ground truth in a separate file."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ..jsonl import Row, write_rows
from ..miniature.annotators import helpfulness_comparison, safety_comparison
from ..miniature.demonstrations import (
    Demonstration,
    demonstrations,
    ghost_attention,
    instructed,
    multi_turn,
)
from ..miniature.pretraining import write_documents
from ..miniature.questions import Risk, WorldQuestion, ask
from ..miniature.system_instructions import InstructionSplit, draw_instruction, write_instruction
from ..miniature.truth import Truth, draw_truth
from ..statistics import measure
from .settings import WorldSettings

PROMPT_RISKS: dict[Risk, float] = {"ordinary": 0.6, "borderline": 0.12, "harmful": 0.28}


def run(settings: WorldSettings, inputs: Mapping[str, Path], out: Path) -> dict[str, Any]:
    """Writes the world of `settings.seed` below `out`; returns the number of rows in each file."""
    truth = draw_truth(settings.seed)
    writer = _Writer(out, settings.seed)
    _write_pretraining(writer, truth, settings)
    demonstration_rows = _write_fine_tuning(writer, truth, settings)
    _write_comparisons(writer, truth, settings)
    rng = writer.generator("prompts")
    writer.write("rlhf/prompts", (_prompt(truth, rng) for _ in range(settings.prompts)))
    cores = _write_test_questions(writer, truth, settings)
    instructions = _write_test_dialogues(writer, truth, settings)
    _write_truth(out, cores, instructions, demonstration_rows=demonstration_rows)
    return {"rows": writer.counts}


class _Writer:
    """Writes JSON lines and counts them; each file has its own random generator, seeded with its name."""

    def __init__(self, out: Path, seed: int) -> None:
        self.out, self.seed = out, seed
        self.counts: dict[str, int] = {}

    def generator(self, name: str) -> random.Random:
        return random.Random(f"{self.seed}/{name}")

    def write(self, name: str, rows: Iterable[Row]) -> None:
        self.counts[name] = write_rows(self.out / f"{name}.jsonl", rows)


def _write_pretraining(writer: _Writer, truth: Truth, settings: WorldSettings) -> None:
    for name, count in (("train", settings.documents), ("validation", settings.validation_documents)):
        rng = writer.generator(f"pretrain/{name}")
        writer.write(f"pretrain/{name}", ({"text": text} for text in write_documents(truth, count, rng)))


def _write_fine_tuning(writer: _Writer, truth: Truth, settings: WorldSettings) -> list[Demonstration]:
    demonstration_rows = demonstrations(truth, settings.demonstrations, writer.generator("demonstrations"))
    rng = writer.generator("dialogues")
    rows = [demonstration.row for demonstration in demonstration_rows]
    rows += [instructed(truth, rng) for _ in range(settings.instructed)]
    rows += [multi_turn(truth, rng) for _ in range(settings.multi_turn)]
    writer.write("sft/dialogues", rows)
    rng = writer.generator("ghost_attention")
    pairs = [ghost_attention(truth, rng) for _ in range(settings.ghost_attention)]
    writer.write("sft/gatt", (instructed_row for instructed_row, _ in pairs))
    writer.write("sft/gatt_plain", (plain for _, plain in pairs))
    return demonstration_rows


def _write_comparisons(writer: _Writer, truth: Truth, settings: WorldSettings) -> None:
    """Writes training and held-out comparisons of each kind, which share no prompt."""
    for kind, compare in (
        ("helpfulness", helpfulness_comparison),
        ("safety", safety_comparison),
    ):
        held_out: set[str] = set()
        for name, count in ((f"{kind}_test", settings.test_comparisons), (kind, settings.comparisons)):
            rng = writer.generator(name)
            rows = [compare(truth, held_out, rng) for _ in range(count)]
            writer.write(f"reward/{name}", rows)
            held_out |= {row["prompt"][0]["content"] for row in rows}


def _prompt(truth: Truth, rng: random.Random) -> dict[str, Any]:
    risk = rng.choices(list(PROMPT_RISKS), list(PROMPT_RISKS.values()))[0]
    question = ask(truth, "train", risk, rng=rng)
    return {"messages": [{"role": "user", "content": question.text}], "is_safety": risk == "harmful"}


def _write_test_questions(writer: _Writer, truth: Truth, settings: WorldSettings) -> dict[str, str]:
    """Writes test prompts without duplicates; returns the correct sentence by id."""
    cores: dict[str, str] = {}
    counts: dict[Risk, int] = {
        "ordinary": settings.test_ordinary,
        "harmful": settings.test_harmful,
        "borderline": settings.test_borderline,
    }
    for risk, count in counts.items():
        questions = _distinct_questions(truth, risk, count, rng=writer.generator(f"test/{risk}"))
        named = {f"{risk}-{index:04d}": question for index, question in enumerate(questions)}
        cores |= {name: question.core for name, question in named.items()}
        writer.write(f"test/{risk}", (_test_row(name, question) for name, question in named.items()))
    return cores


def _distinct_questions(truth: Truth, risk: Risk, count: int, *, rng: random.Random) -> list[WorldQuestion]:
    questions: dict[str, WorldQuestion] = {}
    while len(questions) < count:
        question = ask(truth, "test", risk, rng=rng)
        questions.setdefault(question.text, question)
    return list(questions.values())


def _test_row(name: str, question: WorldQuestion) -> dict[str, Any]:
    return {
        "id": name,
        "messages": [{"role": "user", "content": question.text}],
        "kind": question.kind,
        "category": question.category,
        "attack": question.attack,
    }


def _write_test_dialogues(
    writer: _Writer, truth: Truth, settings: WorldSettings
) -> dict[str, dict[str, str]]:
    """Writes instructions and prompts of the retention test; returns the instructions by id."""
    instructions: dict[str, dict[str, str]] = {}
    splits: dict[str, InstructionSplit] = {"gatt": "new_combination", "gatt_unseen": "unseen"}
    for name, split in splits.items():
        rng = writer.generator(f"test/{name}")
        rows = []
        for index in range(settings.test_dialogues):
            instruction = draw_instruction(split, rng)
            row_id = f"{name}-{index:04d}"
            instructions[row_id] = instruction
            questions = [ask(truth, "test", "ordinary", rng=rng).text for _ in range(settings.test_turns)]
            rows.append(
                {"id": row_id, "instruction": write_instruction(instruction, rng), "questions": questions}
            )
        writer.write(f"test/{name}", rows)
    return instructions


def _write_truth(
    out: Path,
    cores: dict[str, str],
    instructions: dict[str, dict[str, str]],
    *,
    demonstration_rows: list[Demonstration],
) -> None:
    helpfulness = [row.answer.helpfulness for row in demonstration_rows if row.question.risk == "ordinary"]
    truth = {
        "cores": cores,
        "instructions": instructions,
        "demonstrations": {
            **measure("gold_helpfulness", helpfulness),
        },
    }
    (out / "truth.json").write_text(json.dumps(truth), encoding="utf-8")
