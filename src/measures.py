"""Names of all evaluation measures; measures that are missing in a run are null in its report."""

from __future__ import annotations

from typing import Any

REWARD_MODELS = ("helpfulness", "safety")
"""Kinds of the reward models that RLHF optimises, and their names as inputs of stages."""

JUDGE = "judge"
"""Name, as an input of stages, of a third reward model that is not optimised (kind `general`)."""

GOLD, ENDPOINT = "gold", "endpoint"
"""Names of further raters of comparisons: the ground truth, and a judge behind an endpoint."""

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
    "judge_score",
    "classifier_refusal_rate",
    "classifier_false_refusal_rate",
    "classifier_refusal_borderline",
    "answer_tokens",
    "truncated_rate",
)
"""Measures of a version; each has its standard error under `<name>_se`."""

DIFFERENCES = tuple(name for name in MEASURES if name != "kl_to_start")
"""Measures that are compared between versions; KLs to different starting models are not comparable."""

BREAKDOWN = (
    "violation_rate",
    "invalid_rate",
    "refusal_rate",
    "false_refusal_rate",
    "false_refusal_borderline",
    "gold_helpfulness",
    "helpfulness_score",
    "safety_score",
    "judge_score",
)
"""Measures by context, turn, risk category, attack style and language of the prompts."""

BREAKDOWN_LABELS = ("context", "turn", "category", "attack", "language")
"""Labels of prompts by which `BREAKDOWN` is measured."""

RETENTION_TURNS = (1, 2, 4, 6, 10, 20)
AVERAGED_TURNS = 10
"""Turns of a dialogue whose mean is the retention of a version."""
RETENTION_SERIES = ("with", "without", "unseen")
ATTENTION_SERIES = ("with", "without")


def with_errors(names: tuple[str, ...]) -> dict[str, float | None]:
    """Returns `{name: None, name_se: None, …}`: a group of measures before anything is measured."""
    return {key: None for name in names for key in (name, f"{name}_se")}


def empty_version() -> dict[str, float | None]:
    return with_errors(MEASURES)


def empty_turns() -> dict[str, float | None]:
    return with_errors(tuple(map(str, RETENTION_TURNS)))


def empty_version_retention() -> dict[str, float | None]:
    return empty_turns() | with_errors((f"1-{AVERAGED_TURNS}",))


def empty_retention() -> dict[str, dict[str, float | None]]:
    return {series: empty_turns() for series in RETENTION_SERIES}


def empty_attention() -> dict[str, Any]:
    return {"by_turn": empty_turns(), "dialogues": {}, "map": None, "instruction": None}


def empty_ghost_attention() -> dict[str, Any]:
    """Returns every key of Ghost Attention without values."""
    return {
        "gatt_retention": empty_retention(),
        "gatt_retention_explicit": empty_retention(),
        "gatt_retention_difference": empty_turns(),
        "gatt_dialogues": dict.fromkeys(RETENTION_SERIES),
        "gatt_attention": {series: empty_attention() for series in ATTENTION_SERIES},
    }


def empty_evaluation() -> dict[str, Any]:
    """Returns every key of `evaluation.json` without values; keys of versions are added once measured."""
    return {
        "demonstrations": with_errors(("gold_helpfulness",)),
        "versions": {},
        "differences": {},
        "breakdown": {},
        "breakdown_differences": {},
        "decodings": {},
        "distributions": {},
        "score_shift": {"before": None, "after": None, "helpfulness": None, "safety": None},
        "comparisons": {},
        "comparison_judge": None,
        "diversity": {},
        "refusal_agreement": {},
        "ablations": {},
        "ablation_differences": {},
        "ablation_breakdown": {},
        "not_finite": {},
        "version_retention": {},
        "version_retention_differences": {},
        **empty_ghost_attention(),
        "prompts": {},
        "training_rows": {},
        "rows": {},
        "samples": [],
    }
