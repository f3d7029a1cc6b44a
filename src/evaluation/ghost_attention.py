"""Ghost Attention measured: retention and attention of `sft`, and of its ablation without GAtt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cache, partial
from pathlib import Path
from typing import Any

from ..console import say
from ..data.intake import Intake
from ..distributed.steps import made_folder
from ..jsonl import Row, read_rows, write_rows
from ..measures import ATTENTION_SERIES, empty_ghost_attention
from ..miniature.gold import Gold
from ..model.checkpoint import load_tokenizer
from .attention import RecordedDialogue, measure_attention
from .responder import load_model, speaker_for
from .retention import CheckedByCode, InstructedDialogue, measure_retention, read_instructed
from .settings import EvaluateSettings, RetentionSettings
from .values import Values, figures, less

DIALOGUES = "dialogues.jsonl"
ATTENTION_DIALOGUES = 8


def measure_ghost_attention(
    settings: EvaluateSettings, inputs: Mapping[str, Path], out: Path, *, gold: Gold | None, intake: Intake
) -> dict[str, Any]:
    """The keys `gatt_…` of the evaluation; those of a series that the inputs don't allow stay null.

    Each series' dialogues are stored below `out` and never sampled twice.
    """
    measured = empty_ghost_attention()
    if settings.retention is None:
        return measured
    root, turns = inputs.get("gatt", inputs["data"]), settings.retention.turns
    # a test that two models take is read, and its bad rows are counted, once
    read = cache(lambda path, count: read_instructed(path, root, count, turns=turns, intake=intake))
    kept: dict[str, Values] = {}
    instructions: list[str] = []
    first: Path | None = None  # of the series, whose dialogues all models read: nothing else differs then
    for name, model_input, path, count in _series(settings.retention):
        if model_input not in inputs or path is None:
            continue
        dialogues = read(path, count)
        if name == "with":
            instructions = [one.instruction for one in dialogues]
        hold = partial(
            _hold, name, inputs[model_input], dialogues=dialogues, settings=settings, gold=gold, first=first
        )
        found = made_folder(out / name, hold)
        first = first or out / name
        _enter(measured, name, found)
        _report_outgrown(name, found["counts"])
        kept[name] = found["kept"]
    if {"with", "without"} <= kept.keys():
        apart = less(kept["with"], kept["without"], kept["with"])
        measured["gatt_retention_difference"] |= figures(apart, instructions)
    return measured


def _series(retention: RetentionSettings) -> list[tuple[str, str, str | None, int]]:
    """Name, the model's input, test file and number of dialogues of each series."""
    return [
        ("with", "sft", retention.trained, retention.dialogues),
        ("without", "sft_without_gatt", retention.trained, retention.dialogues),
        ("unseen", "sft", retention.unseen, retention.unseen_dialogues),
    ]


def _enter(measured: dict[str, Any], name: str, found: Row) -> None:
    measured["gatt_retention"][name] |= found["implicit"]
    measured["gatt_retention_explicit"][name] |= found["explicit"]
    measured["gatt_dialogues"][name] = found["counts"]
    if attention := found["attention"]:
        by_turn = measured["gatt_attention"][name]["by_turn"] | attention["by_turn"]
        measured["gatt_attention"][name] = attention | {"by_turn": by_turn}


def _report_outgrown(name: str, counts: Mapping[str, Any]) -> None:
    """Which shares are those of survivors only."""
    if counts["outgrown"]:
        left = ", ".join(f"turn {turn}: {reached:,}" for turn, reached in counts["reached"].items())
        say(
            f"warning: retention {name}: {counts['outgrown']:,} of {counts['started']:,} dialogues outgrew "
            f"the context; shares count only those that reached the turn ({left})"
        )


def _hold(
    name: str,
    model_folder: Path,
    out: Path,
    *,
    dialogues: Sequence[InstructedDialogue],
    settings: EvaluateSettings,
    gold: Gold | None,
    first: Path | None,
) -> Row:
    """Writes the dialogues that a model holds and returns what is measured of them."""
    say(f"retention {name}: {len(dialogues)} dialogues")
    model, tokenizer = load_model(model_folder, settings), load_tokenizer(model_folder)
    speaker = speaker_for(model, tokenizer, settings)
    found = measure_retention(speaker, gold or CheckedByCode(dialogues), dialogues)
    write_rows(out / DIALOGUES, ({"text": tokenizer.decode(one.ids), **asdict(one)} for one in found.held))
    attention = None
    if name in ATTENTION_SERIES:
        rows = read_rows((first or out) / DIALOGUES)[:ATTENTION_DIALOGUES]
        attention = measure_attention(model, [RecordedDialogue.from_row(row) for row in rows])
    return {
        "kept": found.kept,
        "implicit": found.implicit,
        "explicit": found.explicit,
        "counts": found.counts,
        "attention": attention,
    }
