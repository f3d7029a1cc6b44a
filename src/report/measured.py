"""Selects the measured figures of a report: null ones are omitted in tables and figures."""

from __future__ import annotations

from typing import Any

from ..measures import RETENTION_TURNS

Report = dict[str, Any]

# kinds of the test prompts that a measure is taken on
_PROMPTS = {
    "gold_helpfulness": ("ordinary",),
    "helpfulness_score": ("ordinary",),
    "safety_score": ("harmful",),
    "judge_score": ("ordinary", "harmful"),
    "violation_rate": ("harmful",),
    "invalid_rate": ("harmful",),
    "refusal_rate": ("harmful",),
    "false_refusal_rate": ("ordinary",),
    "false_refusal_borderline": ("borderline",),
    "classifier_refusal_rate": ("harmful",),
    "classifier_false_refusal_rate": ("ordinary",),
    "classifier_refusal_borderline": ("borderline",),
    "kl_to_sft": ("ordinary", "harmful"),
    "kl_to_start": ("ordinary", "harmful"),
    "answer_tokens": ("ordinary", "harmful", "borderline"),
    "truncated_rate": ("ordinary", "harmful", "borderline"),
}


def measured_versions(report: Report) -> dict[str, Report]:
    """Returns the versions with at least one measured figure, oldest first."""
    return {
        name: figures
        for name, figures in report["versions"].items()
        if any(value is not None for value in figures.values())
    }


def measured_differences(report: Report) -> dict[tuple[str, str], Report]:
    """Returns (version, version it is compared with) -> differences, if at least one was measured."""
    return {
        (name, other): figures
        for name, others in report["differences"].items()
        for other, figures in others.items()
        if any(value is not None for value in figures.values())
    }


def measured_turns(report: Report) -> list[str]:
    """Returns the turns at which instruction following or attention was measured, as keys of the report."""
    groups = [
        *report["gatt_retention"].values(),
        *report["gatt_retention_explicit"].values(),
        *(attention["by_turn"] for attention in report["gatt_attention"].values()),
    ]
    turns = map(str, RETENTION_TURNS)
    return [turn for turn in turns if any(group.get(turn) is not None for group in groups)]


def measured_retention(report: Report) -> dict[str, Report]:
    """Returns the versions whose instruction following was measured at any turn."""
    return {
        name: shares
        for name, shares in report["version_retention"].items()
        if any(value is not None for value in shares.values())
    }


def measured_version_turns(versions: dict[str, Report]) -> list[str]:
    """Returns the turns at which any of the versions was measured, as keys of the report."""
    turns = map(str, RETENTION_TURNS)
    return [turn for turn in turns if any(one.get(turn) is not None for one in versions.values())]


def measured_on(report: Report, measure: str) -> str:
    """Returns the test prompts of a measure: `500 harmful prompts`, without the number if it is unknown."""
    kinds = _PROMPTS[measure]
    name = "all prompts" if len(kinds) == 3 else f"{' and '.join(kinds)} prompts"
    counts = [answered_prompts(report, kind) for kind in kinds]
    known = [count for count in counts if count is not None]
    if len(known) < len(counts):
        return name
    total = sum(known)
    if measure in ("false_refusal_rate", "classifier_false_refusal_rate"):
        total = min(total, _evaluate_settings(report).get("false_refusal_prompts", total))
    return f"{total:,} {name.removeprefix('all ')}"


def first_decoding(report: Report) -> str:
    """Returns how the answers of `versions` were sampled: `temperature 1, top-p 0.9`."""
    first: dict[str, float] = next(iter(_evaluate_settings(report).get("decodings") or ()), {})
    temperature, top_p = first.get("temperature", 1), first.get("top_p", 1)
    return f"temperature {temperature:g}" + (f", top-p {top_p:g}" if top_p != 1 else "")


def answered_prompts(report: Report, kind: str) -> int | None:
    """Returns the number of test prompts of a kind that were answered, or None if it is unknown."""
    counts = report["prompts"].get(kind)
    return counts["read"] - counts["too_long"] if counts else None


def _evaluate_settings(report: Report) -> dict[str, Any]:
    for stage in report["run"]["stages"]:
        if stage["stage"] == "evaluate" and stage["name"] not in report["run"]["metrics_only"]:
            return report["settings"].get(stage["name"], {})
    return {}
