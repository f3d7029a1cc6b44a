"""Titles and number formats of the report, the same in the terminal and on the page."""

from __future__ import annotations

from typing import Any

MISSING = "–"

# key, title (at most 20 letters where the terminal shows it), whether it is a rate shown in percent
MEASURE_COLUMNS = (
    ("gold_helpfulness", "gold helpfulness", False),
    ("helpfulness_score", "helpfulness RM score", False),
    ("safety_score", "safety RM score", False),
    ("judge_score", "third RM score", False),
    ("violation_rate", "violation rate %", True),
    ("invalid_rate", "invalid rate %", True),
    ("refusal_rate", "refusal rate %", True),
    ("false_refusal_rate", "false refusal rate %", True),
    ("false_refusal_borderline", "borderline refusal %", True),
    ("classifier_refusal_rate", "refusal rate by classifier %", True),
    ("classifier_false_refusal_rate", "false refusals by classifier %", True),
    ("classifier_refusal_borderline", "borderline refusals by classifier %", True),
    ("kl_to_sft", "KL to SFT, nats", False),
    ("kl_to_start", "KL to start, nats", False),
    ("answer_tokens", "tokens per answer", False),
    ("truncated_rate", "truncated answers %", True),
)
PAGE_ONLY = (
    "classifier_refusal_rate",
    "classifier_false_refusal_rate",
    "classifier_refusal_borderline",
)
"""Measures that the terminal does not show."""
MEASURE_TITLES = {key: title.removesuffix(" %").removesuffix(", nats") for key, title, _ in MEASURE_COLUMNS}
"""Titles without units."""

# the same for rejection sampling; counts are whole numbers
REJECTION_COLUMNS = (
    ("prompts", "prompts", False),
    ("samples", "sampled answers", False),
    ("finished_share", "finished samples %", True),
    ("selected", "prompts with a selected answer", False),
    ("without_answer", "prompts without a usable answer", False),
    ("all_unsafe", "prompts with only unsafe answers", False),
    ("mean_score", "mean reward, all samples", False),
    ("best_score", "mean reward, selected answers", False),
    ("judge_score", "third RM score, all samples", False),
    ("selected_judge_score", "third RM score, selected", False),
)

CORRECT = 0.4
"""Gold helpfulness of a correct answer that has no courtesy and no follow-up question."""

SERIES_TITLES = {"with": "with GAtt", "without": "without GAtt", "unseen": "with GAtt, unseen values"}

WORSE = "worse"
"""Ends the cell of a difference by which a version is worse, see `regressions.is_worse`."""

CONTEXT_TITLES = {
    "plain": "plain",
    "instruction": "system message",
    "multi_turn": "several turns",
    "instruction_multi_turn": "system message, turns",
}
DIMENSION_TITLES = {"turn": "user turns", "category": "risk category", "attack": "attack style"}

_TITLES = {
    "longer_chosen": "longer answer chosen",
    "shorter_chosen": "shorter answer chosen",
    "non_english": "non-English",
    "multi_turn": "multi-turn",
}


def figure(group: dict[str, Any], key: str, percent: bool = False, *, signed: bool = False) -> str:
    """Formats a figure as `0.612 ± 0.008`, `4.2 ± 0.9` (percent) or `+0.612 ± 0.008`; a dash if null."""
    value, error = group.get(key), group.get(f"{key}_se")
    if value is None:
        return MISSING
    scale, digits = (100, 1) if percent else (1, 3 if abs(value) < 10 else 1)
    text = f"{value * scale:{'+' if signed else ''}.{digits}f}"
    return text if error is None else f"{text} ± {error * scale:.{digits}f}"


def count(value: int | None) -> str:
    """Formats a count as `12,000`; a dash if not counted."""
    return MISSING if value is None else f"{value:,}"


def group_title(dimension: str, group: str) -> str:
    """Returns the title of a group of prompts: `instruction` of `context` -> `system message`."""
    if dimension == "context":
        return CONTEXT_TITLES.get(group, words(group))
    if group == "none" and dimension in ("attack", "category"):
        return f"no {DIMENSION_TITLES[dimension].removeprefix('risk ')}"
    return words(group)


def difference_title(name: str, other: str) -> str:
    return f"{words(name)} − {words(other)}"


def verdict(kind: str, answer: dict[str, Any]) -> tuple[str, str]:
    """Returns the label of a sample answer by the ground truth, and its tone: "good", "bad" or "plain"."""
    if kind == "harmful":
        return answer["verdict"] or "", {"harmful": "bad", "refusal": "good"}.get(answer["verdict"], "plain")
    if answer["verdict"] == "refusal":
        return "false refusal", "bad"
    helpfulness = answer["helpfulness"]
    if helpfulness is None:
        return "", "plain"
    tone = "good" if helpfulness > CORRECT else "plain" if helpfulness == CORRECT else "bad"
    return f"gold helpfulness {helpfulness:.1f}", tone


def words(name: str) -> str:
    """Returns the title of a key or stage: `slightly_better` -> `slightly better`, `v2/ppo` -> `v2 ppo`."""
    return _TITLES.get(name) or name.replace("_", " ").replace("/", " ")
