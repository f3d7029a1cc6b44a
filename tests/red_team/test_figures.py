"""Violations by group and mitigated violations, counted by hand."""

from __future__ import annotations

from typing import Any

import pytest

from llamita.intervals import wilson
from llamita.red_team.answers import Answer
from llamita.red_team.figures import judged, mitigated, version_figures, violated_prompts
from llamita.red_team.judges import Judgement
from llamita.red_team.prompts import RedTeamPrompt

from ..helpers.rows import turn

PROMPTS = {
    name: RedTeamPrompt(name, name[0], "given", messages, category=category, attack=attack)
    for name, messages, category, attack in [
        ("a", turn("a ?"), "illicit", "logic"),
        ("b", turn("b ?"), "illicit", None),
        ("c", [*turn("hi", "hello"), *turn("c ?")], "hateful", "logic"),
        ("d", turn("d ?"), None, None),
    ]
}


def answers_of(verdicts: dict[str, list[bool | None]]) -> tuple[list[Answer], list[Judgement]]:
    answers = [
        Answer(name, number, PROMPTS[name].messages, "it is", True)
        for name, found in verdicts.items()
        for number in range(len(found))
    ]
    return answers, [Judgement(verdict, {}) for found in verdicts.values() for verdict in found]


def test_violations_by_group() -> None:
    verdicts: dict[str, list[bool | None]] = {
        "a": [True, False],
        "b": [False, False],
        "c": [True, True],
        "d": [None, False],
    }
    figures = version_figures(judged(PROMPTS, *answers_of(verdicts)))

    def of(leaf: dict[str, Any]) -> tuple[float, int, int]:
        return leaf["violation_rate"], leaf["prompts"], leaf["answers"]

    assert of(figures["overall"]) == (pytest.approx(3 / 7), 4, 7)
    assert {name: of(leaf) for name, leaf in figures["category"].items()} == {
        "illicit": (0.25, 2, 4),
        "hateful": (1.0, 1, 2),
        "none": (0.0, 1, 1),
    }
    assert {name: of(leaf) for name, leaf in figures["attack"].items()} == {
        "logic": (0.75, 2, 4),
        "none": (0.0, 2, 3),
    }
    assert {name: of(leaf) for name, leaf in figures["turns"].items()} == {
        "single": (0.2, 3, 5),
        "multi": (1.0, 1, 2),
    }
    assert of(figures["category_by_attack"]["illicit"]["none"]) == (0.0, 1, 2)
    assert figures["category_by_attack"].keys() == {"illicit", "hateful", "none"}
    assert figures["overall"]["low"] < 3 / 7 < figures["overall"]["high"]


def test_a_prompt_is_violated_by_any_answer_and_undecided_if_only_unjudged_ones_remain() -> None:
    verdicts: dict[str, list[bool | None]] = {
        "a": [False, True],
        "b": [False, False],
        "c": [None, True],
        "d": [None, False],
    }
    assert violated_prompts(*answers_of(verdicts)) == {"a": True, "b": False, "c": True, "d": None}


def test_mitigated_and_new_violations_are_paired_by_prompt() -> None:
    prompts = {name: RedTeamPrompt(name, name, "given", turn(f"{name} ?")) for name in "abcdefgh"}
    earlier = {"a": True, "b": True, "c": True, "d": False, "e": False, "f": None, "g": True}
    later = {"a": False, "b": True, "c": False, "d": True, "e": False, "f": True, "h": True}
    low, high = wilson(2 / 3, 3)
    new_low, new_high = wilson(1 / 2, 2)
    assert mitigated(prompts, earlier, later) == {  # f is undecided; g and h are answered by one version
        "violated": 3,
        "mitigated": 2,
        "mitigated_share": pytest.approx(2 / 3),
        "low": pytest.approx(low),
        "high": pytest.approx(high),
        "not_violated": 2,
        "new": 1,
        "new_share": 0.5,
        "new_low": pytest.approx(new_low),
        "new_high": pytest.approx(new_high),
    }


def test_nothing_was_violated() -> None:
    found = mitigated(PROMPTS, {"a": False}, {"a": False})
    assert (found["violated"], found["mitigated"], found["mitigated_share"]) == (0, 0, None)
    assert (found["not_violated"], found["new"], found["new_share"]) == (1, 0, 0.0)


def test_variants_of_one_prompt_widen_the_interval() -> None:
    independent = {f"{n}": RedTeamPrompt(f"{n}", f"{n}", "given", turn("?")) for n in range(12)}
    variants = {name: RedTeamPrompt(name, f"{int(name) // 4}", "template", turn("?")) for name in independent}
    wide, narrow = (
        version_figures([(prompt, number < 4) for number, prompt in enumerate(prompts.values())])["overall"]
        for prompts in (variants, independent)
    )
    assert wide["violation_rate"] == narrow["violation_rate"] == pytest.approx(1 / 3)
    assert wide["high"] - wide["low"] > 1.4 * (narrow["high"] - narrow["low"])
