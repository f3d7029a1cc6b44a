"""Blocks of rounds expanded to stages, and references of inputs: pure functions."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llamita.runner.entries import PipelineSettings
from llamita.runner.references import Resolver
from llamita.runner.rounds import MisplacedError, PlacedStage, expand


def entry(name: str, **keys: Any) -> dict[str, Any]:
    return {"name": name, "stage": "judge" if name == "judge" else "tuner", **keys}


def settings(*entries: dict[str, Any]) -> PipelineSettings:
    data = {"name": "tiny", "roots": {"data": None}, "stages": list(entries)}
    return PipelineSettings.model_validate_json(json.dumps(data))


ROUNDS = {
    "rounds": ["v1", "v2", "v3"],
    "previous": "sft",
    "stages": [entry("judge"), entry("rejection"), entry("ppo", only=["v2", "v3"])],
}
PLACED = expand(settings(entry("pretrain"), entry("sft"), ROUNDS, entry("evaluate")))


def resolver(name: str, placed: list[PlacedStage] = PLACED) -> Resolver:
    at = [one.name for one in placed].index(name)
    return Resolver(placed, at, roots=["data"], publishes=lambda one: one.entry.stage == "tuner")


def test_a_block_becomes_plain_stages_in_the_order_of_its_rounds() -> None:
    assert [one.name for one in PLACED] == [
        *("pretrain", "sft"),
        *("v1/judge", "v1/rejection"),
        *("v2/judge", "v2/rejection", "v2/ppo"),
        *("v3/judge", "v3/rejection", "v3/ppo"),
        "evaluate",
    ]
    ppo = PLACED[6]
    assert (ppo.round, ppo.place) == ("v2", ("stages", 2, "stages", 2))


def test_rounds_with_different_settings_are_two_entries_of_one_name() -> None:
    first, later = entry("rejection", only=["v1"]), entry("rejection", only=["v2"], config="later.yaml")
    placed = expand(settings({"rounds": ["v1", "v2"], "stages": [first, later]}))
    assert [(one.name, one.entry.config) for one in placed] == [
        ("v1/rejection", None),
        ("v2/rejection", "later.yaml"),
    ]


@pytest.mark.parametrize(
    ("stage", "reference", "means"),
    [
        ("v1/rejection", "previous", "sft"),
        ("v2/judge", "previous", "v1/rejection"),  # not v1/judge: it publishes no language model
        ("v2/ppo", "previous", "v1/rejection"),  # not v2/rejection
        ("v3/rejection", "previous", "v2/ppo"),
        ("v3/ppo", "rejection", "v3/rejection"),
        ("v3/ppo", "v1/rejection", "v1/rejection"),
        ("v1/rejection", "pretrain", "pretrain"),
        ("evaluate", "v2/ppo", "v2/ppo"),
    ],
)
def test_a_reference_is_a_stage(stage: str, reference: str, means: str) -> None:
    found = resolver(stage).reference(reference, ())
    assert (found.text, found.is_stage) == (means, True)


@pytest.mark.parametrize("reference", ["data", "../models/x", "org/name", "rejecton"])
def test_other_references_are_no_stages(reference: str) -> None:
    assert not resolver("v2/ppo").reference(reference, ()).is_stage


def test_a_root_may_have_the_name_of_a_later_stage() -> None:
    assert not Resolver(PLACED, 1, roots=["evaluate"], publishes=bool).reference("evaluate", ()).is_stage


@pytest.mark.parametrize(
    ("stage", "value", "means"),
    [
        ("v1/rejection", "all.rejection", []),  # later rounds have some
        ("v3/rejection", "all.rejection", ["v1/rejection", "v2/rejection"]),
        ("v3/ppo", "all.rejection", ["v1/rejection", "v2/rejection", "v3/rejection"]),
        ("v2/ppo", "all", ["v1/rejection", "v2/rejection"]),
        ("evaluate", "all", ["v1/rejection", "v2/rejection", "v2/ppo", "v3/rejection", "v3/ppo"]),
        ("evaluate", "all.judge", ["v1/judge", "v2/judge", "v3/judge"]),
        (
            "evaluate",
            ["sft", "all.ppo", "v2/ppo", "v1/rejection"],
            ["sft", "v2/ppo", "v3/ppo", "v1/rejection"],
        ),
        ("v2/ppo", ["previous", "rejection", "data"], ["v1/rejection", "v2/rejection", "data"]),
        ("evaluate", "sft", ["sft"]),
        ("evaluate", [], []),
    ],
)
def test_a_list_refers_to_stages_oldest_first(stage: str, value: Any, means: list[str]) -> None:
    assert [one.text for one in resolver(stage).references(value, ())] == means


def test_a_stage_of_the_round_hides_a_plain_one_of_the_same_name() -> None:
    block = {"rounds": ["v1"], "stages": [entry("judge"), entry("rejection")]}
    placed = expand(settings(entry("judge"), block))
    assert resolver("v1/judge", placed).reference("judge", ()).text == "judge"
    assert resolver("v1/rejection", placed).reference("judge", ()).text == "v1/judge"


def test_previous_skips_rounds_without_a_language_model() -> None:
    block = {"rounds": ["v1", "v2", "v3"], "stages": [entry("judge"), entry("rejection", only=["v1"])]}
    placed = expand(settings(block))
    assert resolver("v3/judge", placed).reference("previous", ()).text == "v1/rejection"


KEY = ("stages", 9, "inputs", "model")
PREVIOUS_OF_BLOCK = ("stages", 2, "previous")


@pytest.mark.parametrize(
    ("stage", "value", "key", "words"),
    [
        ("sft", "previous", KEY, "`previous` is only defined in a block of rounds"),
        ("sft", "evaluate", KEY, "stage 'evaluate' does not come before this one; move it up"),
        ("v1/rejection", "v2/rejection", KEY, "stage 'v2/rejection' does not come before"),
        ("v1/judge", "rejection", KEY, "stage 'rejection' does not come before"),
        ("v1/rejection", "rejection", KEY, "stage 'rejection' does not come before"),
        ("v1/rejection", "ppo", KEY, "stage 'ppo' is not in round 'v1', only in v2, v3"),
        (
            "evaluate",
            "ppo",
            KEY,
            "'ppo' exists in several rounds; expected one of v2/ppo, v3/ppo, or all.ppo for the list",
        ),
        (
            "evaluate",
            "v2/pop",
            KEY,
            "no stage 'pop' in round 'v2'; did you mean 'v2/ppo'?; it has v2/judge",
        ),
        (
            "evaluate",
            "all.rejecton",
            KEY,
            "no stage 'rejecton' before this one; did you mean 'rejection'?; there are",
        ),
        ("sft", "all.rejection", KEY, "all.rejection: no stage 'rejection' before this one"),
        ("sft", "all", KEY, "all: no stage of a round before this one publishes a language model"),
        ("evaluate", ["sft", "v2/pop"], (*KEY, 1), "no stage 'pop' in round 'v2'"),
    ],
)
def test_invalid_references(stage: str, value: Any, key: Any, words: str) -> None:
    with pytest.raises(MisplacedError) as caught:
        resolver(stage).references(value, KEY)
    assert words in str(caught.value)
    assert caught.value.key == key


@pytest.mark.parametrize(
    ("previous", "key", "words"),
    [
        (None, KEY, "no round before 'v1' publishes a language model; add `previous: STAGE` beside `rounds`"),
        ("rejection", PREVIOUS_OF_BLOCK, "stage 'rejection' does not come before"),
        ("evaluate", PREVIOUS_OF_BLOCK, "stage 'evaluate' does not come before"),
        ("all", PREVIOUS_OF_BLOCK, "expected one stage or root, found 'all'"),
        ("previous", PREVIOUS_OF_BLOCK, "expected one stage or root, found 'previous'"),
    ],
)
def test_invalid_previous_of_a_block(previous: str | None, key: Any, words: str) -> None:
    block = {**ROUNDS, "previous": previous}
    placed = expand(settings(entry("pretrain"), entry("sft"), block, entry("evaluate")))
    with pytest.raises(MisplacedError) as caught:
        resolver("v1/rejection", placed).reference("previous", KEY)
    assert words in str(caught.value)
    assert caught.value.key == key


@pytest.mark.parametrize(
    ("entries", "key", "words"),
    [
        (
            [{"rounds": ["v1", "v1"], "stages": [entry("ppo")]}],
            ("stages", 0, "rounds", 1),
            "duplicate round 'v1'",
        ),
        (
            [{"rounds": ["v1"], "stages": [entry("ppo")]}, {"rounds": ["v1"], "stages": [entry("x")]}],
            ("stages", 1, "rounds", 0),
            "duplicate round 'v1'",
        ),
        (
            [{"rounds": ["v1", "v2"], "stages": [entry("ppo"), entry("ppo", only=["v2"])]}],
            ("stages", 0, "stages", 1, "name"),
            "duplicate stage 'v2/ppo'; entries with the same name need `only` with different rounds",
        ),
        (
            [{"rounds": ["v10"], "stages": [entry("ppo", only=["v10", "v11"])]}],
            ("stages", 0, "stages", 0, "only", 1),
            "no round 'v11' in this block; did you mean 'v10'?; expected one of v10",
        ),
        (
            [entry("sft", only=["v1"])],
            ("stages", 0, "only"),
            "only stages of a block of rounds can have `only`",
        ),
        ([entry("sft"), entry("sft")], ("stages", 1, "name"), "duplicate stage 'sft'"),
        (
            [entry("v1"), {"rounds": ["v1"], "stages": [entry("ppo")]}],
            ("stages", 0, "name"),
            "'v1' is already the name of a round",
        ),
        (
            [{"rounds": ["v1"], "stages": [entry("roots")]}],
            ("stages", 0, "stages", 0, "name"),
            "'roots' is a key of the pipeline",
        ),
    ],
)
def test_duplicate_and_unknown_names(entries: list[Any], key: Any, words: str) -> None:
    with pytest.raises(MisplacedError) as caught:
        expand(settings(*entries))
    assert words in str(caught.value)
    assert caught.value.key == key
