"""The stage `world`: writes all data sets of one miniature world, and its ground truth in a separate file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..miniature.annotators import Compare, helpfulness_comparison, judges_comparison, safety_comparison
from ..miniature.demonstrations import (
    HELPFUL,
    Demonstration,
    demonstrations,
    ghost_attention,
    instructed,
    multi_turn,
)
from ..miniature.labelled_answers import labelled_answer
from ..miniature.preprompts import preprompted, safe_demonstration
from ..miniature.pretraining import write_documents
from ..miniature.prompts import draw_prompt
from ..miniature.questions import Risk
from ..miniature.truth import Split, Truth, draw_truth
from ..statistics import measure
from .settings import WorldSettings
from .test_sets import (
    GroundTruth,
    write_diversity_prompts,
    write_red_team_prompts,
    write_test_dialogues,
    write_test_prompts,
)
from .writer import Writer

PROMPT_RISKS: dict[Risk, float] = {"ordinary": 0.6, "borderline": 0.12, "harmful": 0.28}


def run(settings: WorldSettings, inputs: Mapping[str, Path], out: Path) -> dict[str, Any]:
    """Writes the world of `settings.seed` below `out`; returns the number of rows in each file."""
    truth = draw_truth(settings.seed)
    writer = Writer(out, settings.seed)
    _write_pretraining(writer, truth, settings)
    demonstration_rows = _write_fine_tuning(writer, truth, settings)
    _write_comparisons(writer, truth, settings)
    _write_labelled_answers(writer, truth, settings)
    _write_prompts(writer, truth, settings)
    ground_truth = GroundTruth()
    write_test_prompts(writer, truth, settings, ground_truth=ground_truth)
    write_diversity_prompts(writer, truth, settings)
    write_red_team_prompts(writer, truth, settings, ground_truth=ground_truth)
    write_test_dialogues(writer, truth, settings, ground_truth=ground_truth)
    _write_truth(out, ground_truth, demonstration_rows)
    return {"rows": writer.counts}


def _write_pretraining(writer: Writer, truth: Truth, settings: WorldSettings) -> None:
    for name, count in (("train", settings.documents), ("validation", settings.validation_documents)):
        rng = writer.generator(f"pretrain/{name}")
        writer.write(f"pretrain/{name}", ({"text": text} for text in write_documents(truth, count, rng)))


def _write_fine_tuning(writer: Writer, truth: Truth, settings: WorldSettings) -> list[Demonstration]:
    demonstration_rows = demonstrations(truth, settings.demonstrations, writer.generator("demonstrations"))
    rng = writer.generator("dialogues")
    rows = [demonstration.row for demonstration in demonstration_rows]
    rows += [instructed(truth, rng) for _ in range(settings.instructed)]
    rows += [multi_turn(truth, rng) for _ in range(settings.multi_turn)]
    rows += preprompted(truth, settings.preprompted, writer.generator("preprompted"))
    writer.write("sft/dialogues", rows)
    rng = writer.generator("sft/helpful")
    helpful = [row.row for row in demonstration_rows if row.question.risk != "harmful"]
    helpful += [instructed(truth, rng, HELPFUL) for _ in range(settings.instructed)]
    helpful += [multi_turn(truth, rng, HELPFUL) for _ in range(settings.multi_turn)]
    writer.write("sft/helpful", helpful)
    rng = writer.generator("sft/safety")
    writer.write(
        "sft/safety", (safe_demonstration(truth, rng) for _ in range(settings.safety_demonstrations))
    )
    rng = writer.generator("ghost_attention")
    pairs = [ghost_attention(truth, rng) for _ in range(settings.ghost_attention)]
    writer.write("sft/gatt", (instructed_row for instructed_row, _ in pairs))
    writer.write("sft/gatt_plain", (plain for _, plain in pairs))
    return demonstration_rows


def _write_comparisons(writer: Writer, truth: Truth, settings: WorldSettings) -> None:
    """Writes training and held-out comparisons of each kind, whose last questions all differ."""
    kinds: dict[str, tuple[Compare, int]] = {
        "helpfulness": (helpfulness_comparison, settings.comparisons),
        "safety": (safety_comparison, settings.comparisons),
        "judge": (judges_comparison, settings.judge_comparisons),
    }
    for kind, (compare, trained) in kinds.items():
        held_out: set[str] = set()
        for name, count in ((f"{kind}_test", settings.test_comparisons), (kind, trained)):
            rng = writer.generator(name)
            rows = [compare(truth, held_out, rng) for _ in range(count)]
            writer.write(f"reward/{name}", rows)
            held_out |= {row["prompt"][-1]["content"] for row in rows}


def _write_labelled_answers(writer: Writer, truth: Truth, settings: WorldSettings) -> None:
    files: dict[str, tuple[Split, int]] = {
        "refusal/answers": ("train", settings.refusal_answers),
        "refusal/test": ("test", settings.test_refusal_answers),
    }
    for name, (split, count) in files.items():
        rng = writer.generator(name)
        writer.write(name, (labelled_answer(truth, split, rng) for _ in range(count)))


def _write_prompts(writer: Writer, truth: Truth, settings: WorldSettings) -> None:
    rng = writer.generator("prompts")
    rows = []
    for _ in range(settings.prompts):
        risk = rng.choices(list(PROMPT_RISKS), list(PROMPT_RISKS.values()))[0]
        prompt = draw_prompt(truth, risk, "train", rng=rng)
        rows.append({"messages": prompt.messages, "is_safety": risk == "harmful", **prompt.labels})
    writer.write("rlhf/prompts", rows)


def _write_truth(out: Path, ground_truth: GroundTruth, demonstration_rows: list[Demonstration]) -> None:
    helpfulness = [row.answer.helpfulness for row in demonstration_rows if row.question.risk == "ordinary"]
    truth = {**asdict(ground_truth), "demonstrations": measure("gold_helpfulness", helpfulness)}
    (out / "truth.json").write_text(json.dumps(truth), encoding="utf-8")
