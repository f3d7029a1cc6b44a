"""Figures by label of the prompts, on answers counted by hand."""

from __future__ import annotations

from typing import Any

import pytest

from llamita.evaluation.breakdown import breakdown, breakdown_differences
from llamita.evaluation.prompts import EvaluationPrompt, Kind
from llamita.measures import BREAKDOWN, BREAKDOWN_LABELS

from ..helpers.rows import turn


def prompt(kind: Kind, turns: int = 1, system: bool = False, **labels: str) -> EvaluationPrompt:
    messages = [{"role": "system", "content": "s"}] * system + turn("a", "b") * (turns - 1) + turn("q")
    return EvaluationPrompt(kind, "", messages, [1], **labels)


PROMPTS = [
    prompt("harmful", category="illicit", attack="logic"),
    prompt("harmful", system=True, category="illicit", attack="other"),
    prompt("harmful", turns=2, category="hateful"),
    prompt("ordinary", turns=11, system=True, language="spanish"),
    prompt("ordinary", turns=2),
]
TWICE = [one for one in PROMPTS for _ in range(2)]  # two answers per prompt
VIOLATIONS = [1, 1, 1, 0, 0, 0, None, None, None, None]
HELPFUL = [None, None, None, None, None, None, 0.5, 0.7, 1.0, 0.0]


def test_each_group_counts_its_own_answers() -> None:
    values = {"violation_rate": VIOLATIONS, "gold_helpfulness": HELPFUL, "answer_tokens": [1.0] * 10}
    found = breakdown(TWICE, values, [place // 2 for place in range(10)])
    assert list(found) == list(BREAKDOWN_LABELS)
    assert list(found["context"]) == ["plain", "instruction", "multi_turn", "instruction_multi_turn"]
    assert list(found["turn"]) == ["1", "2", "11"]
    assert list(found["category"]) == ["hateful", "illicit"]
    assert list(found["attack"]) == ["logic", "other"]
    assert list(found["language"]) == ["spanish"]
    illicit = found["category"]["illicit"]
    assert illicit.keys() == {"prompts", *BREAKDOWN, *(f"{name}_se" for name in BREAKDOWN)}
    assert (illicit["prompts"], illicit["violation_rate"]) == (2, 0.75)
    assert illicit["violation_rate_se"] == pytest.approx(0.25), "of the prompts' means, 1 and 0.5"
    assert illicit["gold_helpfulness"] is None
    second = found["turn"]["2"]
    assert (second["prompts"], second["violation_rate"], second["gold_helpfulness"]) == (2, 0.0, 0.5)
    assert second["gold_helpfulness_se"] is None, "one prompt"
    assert found["language"]["spanish"]["gold_helpfulness"] == pytest.approx(0.6)


def test_groups_are_those_of_the_answers_not_of_the_prompts() -> None:
    """Two prompts with the same first message are one group in the standard error, and two prompts."""
    groups = ["a", "a", "a", "a", *range(6)]
    illicit = breakdown(TWICE, {"violation_rate": VIOLATIONS}, groups)["category"]["illicit"]
    assert (illicit["prompts"], illicit["violation_rate_se"]) == (2, None)


def test_differences_are_paired_answer_by_answer() -> None:
    versions: dict[str, Any] = {
        "sft": {"violation_rate": VIOLATIONS},
        "v1": {"violation_rate": [1, 0, 0, 0, 0, 0, *[None] * 4], "gold_helpfulness": HELPFUL},
        "v2": {"violation_rate": [0] * 6 + [None] * 4},
    }
    found = breakdown_differences(TWICE, versions, [place // 2 for place in range(10)])
    assert {name: list(others) for name, others in found.items()} == {"v1": ["sft"], "v2": ["v1", "sft"]}
    illicit = found["v1"]["sft"]["category"]["illicit"]
    assert (illicit["violation_rate"], illicit["violation_rate_se"]) == (-0.5, 0.0)
    assert illicit["gold_helpfulness"] is None, "sft lacks it"
    assert found["v2"]["sft"]["context"]["plain"]["violation_rate"] == -1.0
    assert found["v2"]["v1"]["context"]["plain"]["violation_rate"] == -0.5
