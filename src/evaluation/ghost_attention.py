"""Measures Ghost Attention: instruction following and attention, with `sft` and its ablation without GAtt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from ..console import say
from ..distributed.cached import cached_folder
from ..jsonl import Row, read_rows, write_rows
from ..measures import ATTENTION_SERIES, empty_ghost_attention
from ..miniature.gold import Gold
from ..model.checkpoint import load_tokenizer
from .attention import RecordedDialogue, measure_attention
from .instructed import InstructedDialogue, InstructedTests, InstructionChecks
from .responder import Models
from .retention import at_measured_turns, measure_retention
from .settings import EvaluateSettings
from .values import Values, figures, subtract
from .version_retention import report_outgrown

DIALOGUES = "dialogues.jsonl"
ATTENTION_DIALOGUES = 8


def measure_ghost_attention(
    settings: EvaluateSettings,
    inputs: Mapping[str, Path],
    out: Path,
    *,
    models: Models,
    tests: InstructedTests,
    gold: Gold | None,
) -> tuple[dict[str, Any], dict[str, Values]]:
    """Returns the keys `gatt_…` of the evaluation, and by series whether each answer follows its instruction.

    A series whose inputs are missing is null. The dialogues of each series are stored below `out`; a resumed
    run reuses them.
    """
    measured = empty_ghost_attention()
    followed: dict[str, Values] = {}
    first: Path | None = None  # folder of the first series; attention is measured on its dialogues
    for name, model_input, dialogues in _series(tests):
        if model_input not in inputs or dialogues is None:
            continue
        run = partial(
            _run_series,
            name,
            inputs[model_input],
            models=models,
            dialogues=dialogues,
            settings=settings,
            gold=gold,
            first=first,
        )
        results = cached_folder(out / name, run)
        first = first or out / name
        _store(measured, name, results)
        followed[name] = results["followed"]
        report_outgrown(name, followed[name])
    if {"with", "without"} <= followed.keys():
        turns = at_measured_turns(followed["with"])
        difference = subtract(followed["with"], followed["without"], turns)
        instructions = [dialogue.instruction for dialogue in tests.trained]
        measured["gatt_retention_difference"] |= figures(difference, instructions)
    return measured, followed


def _series(tests: InstructedTests) -> list[tuple[str, str, list[InstructedDialogue] | None]]:
    """Returns name, input of the model and dialogues of each series."""
    return [
        ("with", "sft", tests.trained),
        ("without", "sft_without_gatt", tests.trained),
        ("unseen", "sft", tests.unseen),
    ]


def _store(measured: dict[str, Any], name: str, results: Row) -> None:
    measured["gatt_retention"][name] |= results["implicit"]
    measured["gatt_retention_explicit"][name] |= results["explicit"]
    measured["gatt_dialogues"][name] = results["counts"]
    if attention := results["attention"]:
        by_turn = measured["gatt_attention"][name]["by_turn"] | attention["by_turn"]
        measured["gatt_attention"][name] = attention | {"by_turn": by_turn}


def _run_series(
    name: str,
    model_folder: Path,
    out: Path,
    *,
    models: Models,
    dialogues: Sequence[InstructedDialogue],
    settings: EvaluateSettings,
    gold: Gold | None,
    first: Path | None,
) -> Row:
    """Writes a model's dialogues to `out` and returns their measures."""
    say(f"retention {name}: sampling {len(dialogues):,} dialogues")
    tokenizer = load_tokenizer(model_folder)
    responder = models.responder(model_folder, tokenizer)
    retention = measure_retention(responder, gold or InstructionChecks(dialogues), dialogues)
    recorded = ({"text": tokenizer.decode(one.ids), **asdict(one)} for one in retention.dialogues)
    write_rows(out / DIALOGUES, recorded)
    attention = None
    if name in ATTENTION_SERIES and (answered := _answered_dialogues((first or out) / DIALOGUES)):
        attention = measure_attention(models.load(model_folder), answered[:ATTENTION_DIALOGUES])
    return {
        "followed": retention.followed,
        "implicit": retention.implicit,
        "explicit": retention.explicit,
        "counts": retention.counts,
        "attention": attention,
    }


def _answered_dialogues(path: Path) -> list[RecordedDialogue]:
    """Reads dialogues without those that have no answer, since their first prompt exceeds the context."""
    return [dialogue for dialogue in map(RecordedDialogue.from_row, read_rows(path)) if dialogue.answers]
