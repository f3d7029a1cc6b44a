"""Measures Ghost Attention: instruction following and attention, with `sft` and its ablation without GAtt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cache, partial
from pathlib import Path
from typing import Any

from ..console import say
from ..data.intake import Intake
from ..distributed.cached import cached_folder
from ..jsonl import Row, read_rows, write_rows
from ..measures import ATTENTION_SERIES, empty_ghost_attention
from ..miniature.gold import Gold
from ..model.checkpoint import load_tokenizer
from .attention import RecordedDialogue, measure_attention
from .responder import load_model, make_responder
from .retention import InstructedDialogue, InstructionChecks, measure_retention, read_instructed
from .settings import EvaluateSettings, RetentionSettings
from .values import Values, figures, subtract

DIALOGUES = "dialogues.jsonl"
ATTENTION_DIALOGUES = 8


def measure_ghost_attention(
    settings: EvaluateSettings, inputs: Mapping[str, Path], out: Path, *, gold: Gold | None, intake: Intake
) -> dict[str, Any]:
    """Returns the keys `gatt_…` of the evaluation; a series whose inputs are missing is null.

    The dialogues of each series are stored below `out`; a resumed run reuses them.
    """
    measured = empty_ghost_attention()
    if settings.retention is None:
        return measured
    root, turns = inputs.get("gatt", inputs["data"]), settings.retention.turns
    # cached: two models use the same test file, and its bad rows are counted once
    read = cache(lambda path, count: read_instructed(path, root, count, turns=turns, intake=intake))
    followed: dict[str, Values] = {}
    instructions: list[str] = []
    first: Path | None = None  # folder of the first series; attention is measured on its dialogues
    for name, model_input, path, count in _series(settings.retention):
        if model_input not in inputs or path is None:
            continue
        dialogues = read(path, count)
        if name == "with":
            instructions = [dialogue.instruction for dialogue in dialogues]
        run = partial(
            _run_series,
            name,
            inputs[model_input],
            dialogues=dialogues,
            settings=settings,
            gold=gold,
            first=first,
        )
        results = cached_folder(out / name, run)
        first = first or out / name
        _store(measured, name, results)
        _report_outgrown(name, results["counts"])
        followed[name] = results["followed"]
    if {"with", "without"} <= followed.keys():
        difference = subtract(followed["with"], followed["without"], followed["with"])
        measured["gatt_retention_difference"] |= figures(difference, instructions)
    return measured


def _series(retention: RetentionSettings) -> list[tuple[str, str, str | None, int]]:
    """Returns name, input of the model, test file and number of dialogues of each series."""
    return [
        ("with", "sft", retention.trained, retention.dialogues),
        ("without", "sft_without_gatt", retention.trained, retention.dialogues),
        ("unseen", "sft", retention.unseen, retention.unseen_dialogues),
    ]


def _store(measured: dict[str, Any], name: str, results: Row) -> None:
    measured["gatt_retention"][name] |= results["implicit"]
    measured["gatt_retention_explicit"][name] |= results["explicit"]
    measured["gatt_dialogues"][name] = results["counts"]
    if attention := results["attention"]:
        by_turn = measured["gatt_attention"][name]["by_turn"] | attention["by_turn"]
        measured["gatt_attention"][name] = attention | {"by_turn": by_turn}


def _report_outgrown(name: str, counts: Mapping[str, Any]) -> None:
    """Warns that later turns are measured only on dialogues that did not exceed the context."""
    if counts["outgrown"]:
        by_turn = ", ".join(f"turn {turn}: {reached:,}" for turn, reached in counts["reached"].items())
        say(
            f"warning: retention {name}: {counts['outgrown']:,} of {counts['started']:,} dialogues exceeded "
            f"the context length; a rate counts only dialogues that reached its turn ({by_turn})"
        )


def _run_series(
    name: str,
    model_folder: Path,
    out: Path,
    *,
    dialogues: Sequence[InstructedDialogue],
    settings: EvaluateSettings,
    gold: Gold | None,
    first: Path | None,
) -> Row:
    """Writes a model's dialogues to `out` and returns their measures."""
    say(f"retention {name}: sampling {len(dialogues):,} dialogues")
    model, tokenizer = load_model(model_folder, settings), load_tokenizer(model_folder)
    responder = make_responder(model, tokenizer, settings)
    retention = measure_retention(responder, gold or InstructionChecks(dialogues), dialogues)
    recorded = ({"text": tokenizer.decode(one.ids), **asdict(one)} for one in retention.dialogues)
    write_rows(out / DIALOGUES, recorded)
    attention = None
    if name in ATTENTION_SERIES:
        rows = read_rows((first or out) / DIALOGUES)[:ATTENTION_DIALOGUES]
        attention = measure_attention(model, [RecordedDialogue.from_row(row) for row in rows])
    return {
        "followed": retention.followed,
        "implicit": retention.implicit,
        "explicit": retention.explicit,
        "counts": retention.counts,
        "attention": attention,
    }
