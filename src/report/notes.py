"""Notes on what the figures omit, with counts: the same sentences on the page and in the terminal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .words import MEASURE_TITLES, SERIES_TITLES, words

Report = dict[str, Any]


def notes(report: Report) -> dict[str, list[str]]:
    """Returns the notes by section of the page."""
    return {
        "versions": [*_prompts(report), *_not_finite(report), *_metrics_only(report, "evaluate")],
        "retention": list(_outgrown(report)),
        "training": [*_omitted_losses(report), *_metrics_only(report, "pretrain")],
    }


def _prompts(report: Report) -> Iterator[str]:
    for kind, counts in report["prompts"].items():
        if counts["too_long"]:
            yield (
                f"{counts['too_long']:,} of {counts['read']:,} {kind} prompts were skipped: prompt and "
                "answer would exceed the context length."
            )
        for reason, count in (counts.get("skipped") or {}).items():
            yield f"{count:,} other rows of {kind} prompts were skipped: {reason}."


def _not_finite(report: Report) -> Iterator[str]:
    for version, broken in report["not_finite"].items():
        for measure, count in broken.items():
            title = MEASURE_TITLES.get(measure, words(measure))
            yield f"{words(version)}: {title} is not shown: {count:,} of its values are NaN or infinite."


def _outgrown(report: Report) -> Iterator[str]:
    for name, counts in report["gatt_dialogues"].items():
        if counts and counts["outgrown"]:
            reached = counts.get("reached") or {}
            turns = [f"turn {turn}: {count}" for turn, count in reached.items() if count < counts["started"]]
            by_turn = f" ({', '.join(turns)})" if turns else ""
            yield (
                f"{SERIES_TITLES[name]}: {counts['outgrown']} of {counts['started']} dialogues exceeded the "
                "context length before the last turn; a rate counts only dialogues that reached its turn"
                f"{by_turn}."
            )


def _omitted_losses(report: Report) -> Iterator[str]:
    for name, curve in report["curves"].items():
        if omitted := curve["not_finite"]:
            yield f"{words(name)}: {omitted:,} losses were NaN or infinite and are not drawn."


def _metrics_only(report: Report, kind: str) -> list[str]:
    return [
        f"{words(stage['name'])}: a second stage of kind {kind}; its metrics are in report.json under "
        f"metrics.{stage['name']}."
        for stage in report["run"]["stages"]
        if stage["stage"] == kind and stage["name"] in report["run"]["metrics_only"]
    ]
