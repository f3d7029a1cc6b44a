"""Variants of prompts by templates and openings, and the ids of prompts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llamita.data.rows import Prompt
from llamita.data.settings import PromptSource
from llamita.data.sources import read_prompts
from llamita.errors import DataError
from llamita.red_team.prompts import (
    MULTI_TURN,
    check_ids,
    given_prompts,
    originals,
    rule_based_variants,
)
from llamita.red_team.settings import RedTeamSettings

from ..helpers.rows import turn, write


def settings(**changes: Any) -> RedTeamSettings:
    values = {
        "prompts": [{"path": "prompts.jsonl", "format": "prompts"}],
        "max_new_tokens": 4,
        "judge": {"by": "rules"},
    }
    return RedTeamSettings.model_validate_json(json.dumps(values | changes))


def prompt(text: str, **named: Any) -> Prompt:
    return Prompt(turn(text), **named)


def test_each_original_gets_one_variant_per_style_and_keeps_its_category() -> None:
    given = given_prompts(
        [prompt(f" q{n} ? ", category="illicit") for n in range(12)] + [prompt("x ?", attack="logic")]
    )
    chosen = settings(
        attacks={"psychological": ["please {prompt}", "now {prompt}"], "logic": ["so {prompt}"]}
    )
    variants = rule_based_variants(chosen, originals(chosen, given))
    assert len(variants) == 24
    assert {one.origin for one in variants} == {one.id for one in given[:12]}
    assert {(one.kind, one.category, one.turns) for one in variants} == {("template", "illicit", "single")}
    assert [one.request for one in variants if one.attack == "logic"] == [f"so q{n} ?" for n in range(12)]
    drawn = [one.request.split()[0] for one in variants if one.attack == "psychological"]
    assert set(drawn) == {"please", "now"}
    fewer = rule_based_variants(chosen, originals(chosen, given[6:]))
    assert fewer == variants[12:], "a draw depends on its prompt only"
    assert len({one.id for one in [*given, *variants]}) == len(given) + len(variants)


def test_openings_precede_single_turn_prompts_only() -> None:
    history = [*turn("hi", "hello"), *turn("q ?")]
    system = [{"role": "system", "content": "be kind"}, *turn("s ?")]
    given = given_prompts([prompt("q ?"), Prompt(history), Prompt(system)])
    chosen = settings(openings=[["one", "two"], ["three"]])
    variants = rule_based_variants(chosen, originals(chosen, given))
    assert [one.origin for one in variants] == [given[0].id, given[2].id]
    assert all(one.openings in (("one", "two"), ("three",)) for one in variants)
    assert {(one.attack, one.turns, one.kind) for one in variants} == {(MULTI_TURN, "multi", "opening")}
    assert [one.messages for one in variants] == [turn("q ?"), system]
    assert [one.turns for one in given] == ["single", "multi", "single"]


def test_ids_are_those_of_the_rows_or_of_the_messages() -> None:
    first, second, third = given_prompts([prompt("q ?", id="r1"), prompt("r ?"), prompt("s ?")])
    assert first.id == "r1"
    assert second.id == given_prompts([prompt("r ?", category="other")])[0].id != third.id
    with pytest.raises(DataError, match="1 ids belong to several prompts, the first: 'r1'"):
        check_ids(given_prompts([prompt("q ?", id="r1"), prompt("r ?", id="r1")]))


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"attacks": {"logic": ["no place"]}}, r"'no place' does not contain {prompt}"),
        ({"attacks": {"logic": []}}, "at least 1 item"),
        ({"openings": [[]]}, "at least 1 item"),
        (
            {"mutations": {"instructions": {"logic": "rewrite"}, "max_new_tokens": 4}},
            r"'rewrite' does not contain",
        ),
        ({"judge": {"by": "magic"}}, "'magic' found using 'by' does not match"),
    ],
)
def test_wrong_settings(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        settings(**changes)


def test_prompts_can_be_texts_in_csv_and_jsonl_files(tmp_path: Path) -> None:
    (tmp_path / "prompts.csv").write_text(
        'prompt,category,attack,system\n"how, exactly ?",illicit,,\nwhy ?,,logic,be kind\n'
    )
    source = PromptSource(path="prompts.csv", format="prompts")
    first, second = given_prompts(read_prompts([source], tmp_path))
    assert (first.request, first.category, first.attack) == ("how, exactly ?", "illicit", None)
    assert second.messages == [{"role": "system", "content": "be kind"}, *turn("why ?")]
    assert second.attack == "logic"
    write(tmp_path / "prompts.jsonl", [{"prompt": "how ?", "history": [["hi", "hello"]]}])
    [prompt] = read_prompts([PromptSource(path="prompts.jsonl", format="prompts")], tmp_path)
    assert prompt.messages == [*turn("hi", "hello"), *turn("how ?")]
