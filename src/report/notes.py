"""What the figures leave out, counted: the same sentences on the page and in the terminal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .words import SERIES_TITLES, words

Report = dict[str, Any]


def notes(report: Report) -> dict[str, list[str]]:
    """Sentences by section of the page."""
    return {
        "versions": [*_prompts(report), *_not_finite(report), *_metrics_only(report, "evaluate")],
        "retention": list(_outgrown(report)),
        "training": [*_lost_losses(report), *_metrics_only(report, "pretrain")],
    }


def _prompts(report: Report) -> Iterator[str]:
    for kind, counts in report["prompts"].items():
        if counts["too_long"]:
            yield f"{counts['too_long']} of {counts['read']} {kind} prompts were too long for the context."
        for reason, count in (counts.get("skipped") or {}).items():
            yield f"{count} further {kind} prompts were left out: {reason}."


def _not_finite(report: Report) -> Iterator[str]:
    for version, broken in report["not_finite"].items():
        for measure, count in broken.items():
            yield (
                f"{words(version)}: {words(measure)} is not shown: {count} of its values are NaN or infinite."
            )


def _outgrown(report: Report) -> Iterator[str]:
    for name, counts in report["gatt_dialogues"].items():
        if counts and counts["outgrown"]:
            reached = counts.get("reached") or {}
            turns = [f"turn {turn}: {count}" for turn, count in reached.items() if count < counts["started"]]
            which = f" ({', '.join(turns)})" if turns else ""
            yield (
                f"{SERIES_TITLES[name]}: {counts['outgrown']} of {counts['started']} dialogues outgrew the "
                f"context before the last turn; the shares count only those that reached the turn{which}."
            )


def _lost_losses(report: Report) -> Iterator[str]:
    for name, curve in report["curves"].items():
        if lost := curve["not_finite"]:
            yield f"{words(name)}: {lost} losses were NaN or infinite and are not drawn."


def _metrics_only(report: Report, kind: str) -> list[str]:
    return [
        f"{words(stage['name'])}: a second stage of the kind {kind}; its figures are in report.json, "
        f"metrics.{stage['name']}."
        for stage in report["run"]["stages"]
        if stage["stage"] == kind and stage["name"] in report["run"]["metrics_only"]
    ]
