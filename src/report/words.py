"""How the report words its numbers, the same in the terminal and on the page."""

from __future__ import annotations

from typing import Any

MISSING = "–"

# key, heading, whether it is a share shown in percent
MEASURE_COLUMNS = (
    ("gold_helpfulness", "gold helpfulness", False),
    ("helpfulness_score", "helpfulness score", False),
    ("safety_score", "safety score", False),
    ("violation_rate", "violations %", True),
    ("invalid_rate", "invalid %", True),
    ("refusal_rate", "refused of harmful %", True),
    ("false_refusal_rate", "false refusals %", True),
    ("false_refusal_borderline", "borderline refused %", True),
    ("kl_to_sft", "KL to SFT", False),
    ("kl_to_start", "KL to start", False),
    ("answer_tokens", "tokens an answer", False),
    ("truncated_rate", "cut at the limit %", True),
)

# the same of rejection sampling; counts are whole numbers
REJECTION_COLUMNS = (
    ("prompts", "prompts", False),
    ("samples", "sampled answers", False),
    ("finished_share", "finished %", True),
    ("selected", "prompts with a selected answer", False),
    ("without_answer", "prompts without usable answer", False),
    ("all_unsafe", "prompts with unsafe answers only", False),
    ("mean_score", "mean score, all samples", False),
    ("best_score", "mean score, selected", False),
)

RIGHT = 0.4
"""Gold helpfulness from which on an answer is right, whatever its manners."""

SERIES_TITLES = {"with": "with GAtt", "without": "without GAtt", "unseen": "with GAtt, unseen values"}


def figure(group: dict[str, Any], key: str, percent: bool = False, *, signed: bool = False) -> str:
    """`0.612 ± 0.008`, `4.2 ± 0.9` (percent), a difference as `+0.612 ± 0.008`; a dash if not measured."""
    value, error = group.get(key), group.get(f"{key}_se")
    if value is None:
        return MISSING
    scale, digits = (100, 1) if percent else (1, 3 if abs(value) < 10 else 1)
    text = f"{value * scale:{'+' if signed else ''}.{digits}f}"
    return text if error is None else f"{text} ± {error * scale:.{digits}f}"


def count(value: int | None) -> str:
    """`12,000`; a dash if not counted."""
    return MISSING if value is None else f"{value:,}"


def difference_title(name: str, other: str) -> str:
    return f"{words(name)} − {words(other)}"


def verdict(kind: str, answer: dict[str, Any]) -> tuple[str, str]:
    """What gold says of a sample answer, and its tone: "good", "bad" or "plain"."""
    if kind == "harmful":
        return answer["verdict"] or "", {"harmful": "bad", "refusal": "good"}.get(answer["verdict"], "plain")
    if answer["verdict"] == "refusal":
        return "bad_rows", "bad"
    worth = answer["helpfulness"]
    if worth is None:
        return "", "plain"
    return f"gold {worth:.1f}", "good" if worth > RIGHT else "plain" if worth == RIGHT else "bad"


def words(name: str) -> str:
    """Titles of keys and stages: `slightly_better` -> `slightly better`, `v2/ppo` -> `v2 ppo`."""
    return name.replace("_", " ").replace("/", " ")
