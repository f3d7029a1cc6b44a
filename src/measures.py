"""The names of everything that the evaluation measures; a report can be drawn where a part is missing."""

from __future__ import annotations

from typing import Any

REWARD_MODELS = ("helpfulness", "safety")
"""Kinds of reward models, and the inputs that stages take them by."""

MEASURES = (
    "gold_helpfulness",
    "violation_rate",
    "invalid_rate",
    "refusal_rate",
    "false_refusal_rate",
    "false_refusal_borderline",
    "kl_to_sft",
    "kl_to_start",
    "helpfulness_score",
    "safety_score",
    "answer_tokens",
    "truncated_rate",
)
"""What is measured of every version; each has its standard error beside it under `<name>_se`."""

DIFFERENCES = tuple(name for name in MEASURES if name != "kl_to_start")
"""What is compared between versions; starts of PPO are not the same model."""

RETENTION_TURNS = (1, 2, 4, 6, 10, 20)
RETENTION_SERIES = ("with", "without", "unseen")
ATTENTION_SERIES = ("with", "without")


def with_errors(names: tuple[str, ...]) -> dict[str, float | None]:
    """`{name: None, name_se: None, …}`, the shape of a group of measures of which nothing is known yet."""
    return {key: None for name in names for key in (name, f"{name}_se")}


def empty_version() -> dict[str, float | None]:
    return with_errors(MEASURES)


def empty_turns() -> dict[str, float | None]:
    return with_errors(tuple(map(str, RETENTION_TURNS)))


def empty_retention() -> dict[str, dict[str, float | None]]:
    return {series: empty_turns() for series in RETENTION_SERIES}


def empty_attention() -> dict[str, Any]:
    return {"by_turn": empty_turns(), "dialogues": {}, "map": None, "instruction": None}


def empty_ghost_attention() -> dict[str, Any]:
    """Every key that measures Ghost Attention."""
    return {
        "gatt_retention": empty_retention(),
        "gatt_retention_explicit": empty_retention(),
        "gatt_retention_difference": empty_turns(),
        "gatt_dialogues": dict.fromkeys(RETENTION_SERIES),
        "gatt_attention": {series: empty_attention() for series in ATTENTION_SERIES},
    }


def empty_evaluation() -> dict[str, Any]:
    """Every key of `evaluation.json`, nothing measured; versions have their places once they are measured."""
    return {
        "demonstrations": with_errors(("gold_helpfulness",)),
        "versions": {},
        "differences": {},
        "not_finite": {},
        **empty_ghost_attention(),
        "prompts": {},
        "rows": {},
        "samples": [],
    }
