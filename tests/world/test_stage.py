"""The files of a world: equal for equal seeds, as many rows as in the settings, separate held-out rows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llamita.miniature.answers import (
    CORRECT,
    FOLLOWS_UP,
    POLITE,
)
from llamita.miniature.gold import Gold
from llamita.miniature.truth import draw_truth
from llamita.world.settings import WorldSettings
from llamita.world.stage import run

SMALL = WorldSettings(
    seed=3,
    documents=60,
    validation_documents=5,
    demonstrations=200,
    instructed=30,
    multi_turn=20,
    ghost_attention=20,
    comparisons=200,
    test_comparisons=50,
    prompts=100,
    test_ordinary=60,
    test_harmful=40,
    test_borderline=40,
    test_dialogues=10,
)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("world")
    run(SMALL, {}, out)
    return out


def rows(world: Path, name: str) -> list[dict]:
    return [json.loads(line) for line in (world / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]


def test_same_seed_same_bytes_other_seed_other_truth(world: Path, tmp_path: Path) -> None:
    run(SMALL, {}, tmp_path)
    for path in sorted(world.rglob("*.json*")):
        assert path.read_bytes() == (tmp_path / path.relative_to(world)).read_bytes()
    assert draw_truth(3).values != draw_truth(4).values


def test_counts_are_the_settings(world: Path) -> None:
    assert len(rows(world, "pretrain/train")) == 60
    assert len(rows(world, "sft/dialogues")) == 200 + 30 + 20
    assert len(rows(world, "reward/safety_test")) == 50
    assert len({row["messages"][0]["content"] for row in rows(world, "test/ordinary")}) == 60


@pytest.mark.parametrize("kind", ["helpfulness", "safety"])
def test_no_held_out_comparison_shares_its_prompt_with_a_trained_one(world: Path, kind: str) -> None:
    trained, held_out = (
        {row["prompt"][0]["content"] for row in rows(world, f"reward/{name}")}
        for name in (kind, f"{kind}_test")
    )
    assert not trained & held_out


def test_the_truth_file_has_the_value_of_demonstrations(world: Path) -> None:
    gold = Gold.load(world)
    assert 0.4 < gold.demonstrations_helpfulness < 0.65
    assert gold.demonstrations_helpfulness < 0.7 * (CORRECT + POLITE + FOLLOWS_UP)
    assert gold.demonstrations_helpfulness_se == pytest.approx(0.35 / 140**0.5, abs=0.01)
