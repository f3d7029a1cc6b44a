"""Prompts that leave no room for an answer are skipped and counted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llamita.data.intake import Intake
from llamita.errors import DataError
from llamita.jsonl import read_rows
from llamita.model.checkpoint import load_tokenizer
from llamita.rlhf.ppo import stage as ppo_stage
from llamita.rlhf.prompts import EncodedPrompt, read_pool
from llamita.rlhf.rejection import stage as rejection_stage

from ..helpers.rlhf import make_inputs, ppo, rejection
from ..helpers.rows import turn, write


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any) -> dict[str, Path]:
    return make_inputs(tmp_path_factory.mktemp("inputs"), tokenizer)


def pool(inputs: dict[str, Path], **changes: Any) -> tuple[list[EncodedPrompt], dict[str, int]]:
    intake = Intake()
    tokenizer = load_tokenizer(inputs["start"])
    found = read_pool(ppo(**changes), inputs["data"], tokenizer, context_length=128, intake=intake)
    return found, intake.metrics()["skipped"]


def test_prompts_without_room_are_counted(inputs: dict[str, Path]) -> None:
    long, some = "what " * 100, read_rows(inputs["data"] / "prompts.jsonl")
    write(inputs["data"] / "long.jsonl", [*some, {"messages": turn(long)}])
    source = [{"path": "long.jsonl", "format": "prompts"}]
    found, skipped = pool(inputs, prompts=source)
    assert len(found) == 8
    assert skipped == {"prompt longer than 87 tokens": 1}
    with pytest.raises(DataError, match=r"longer than 0 tokens \(no room for an answer in the context\)"):
        pool(inputs, max_new_tokens=127)


def test_an_eos_fits_behind_the_longest_answer(inputs: dict[str, Path]) -> None:
    """Reward models read it; beyond their context some have no position."""
    longest = max(len(prompt.ids) for prompt in pool(inputs)[0])
    kept, _ = pool(inputs, max_new_tokens=128 - longest - 1)
    assert max(len(prompt.ids) for prompt in kept) == longest
    fewer, skipped = pool(inputs, max_new_tokens=128 - longest)
    assert max((len(prompt.ids) for prompt in fewer), default=0) < longest
    assert skipped[f"prompt longer than {longest - 1} tokens"] == len(kept) - len(fewer)


@pytest.mark.parametrize("kind", ["ppo", "rejection"])
@pytest.mark.parametrize("short", ["start", "safety", "judge"])
def test_the_smallest_context_is_that_of_any_model(
    tmp_path: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch, kind: str, short: str
) -> None:
    stage = ppo_stage if kind == "ppo" else rejection_stage
    inputs = make_inputs(tmp_path, tokenizer)  # `start` and `model` are one folder
    file = next(inputs[short].rglob("config.json"))
    config = json.loads(file.read_text())
    file.write_text(json.dumps(config | {"max_position_embeddings": 99}))
    found: list[int] = []

    def stopped(*_: object, context_length: int, **__: object) -> None:
        found.append(context_length)
        raise KeyError

    monkeypatch.setattr(stage, "read_pool", stopped)
    with pytest.raises(KeyError):
        stage.run((ppo if kind == "ppo" else rejection)(), inputs, tmp_path / "out")
    assert found == [99]
    assert config["max_position_embeddings"] > 99


def test_prompts_above_max_prompt_length_are_counted(inputs: dict[str, Path]) -> None:
    lengths = [len(prompt.ids) for prompt in pool(inputs)[0]]
    limit = max(lengths) - 1
    found, skipped = pool(inputs, max_prompt_length=limit)
    assert [len(prompt.ids) for prompt in found] == [length for length in lengths if length <= limit]
    assert skipped == {f"prompt longer than {limit} tokens": sum(length > limit for length in lengths)}
    assert len(pool(inputs, max_prompt_length=limit + 1)[0]) == len(lengths)
    with pytest.raises(DataError, match=r"all 8 prompts are longer than 2 tokens \(max_prompt_length\)"):
        pool(inputs, max_prompt_length=2)


def test_instructions_are_drawn_with_the_stages_seed(inputs: dict[str, Path]) -> None:
    source = [{"path": "prompts.jsonl", "format": "prompts", "instruction_share": 0.5}]
    drawn = {seed: [prompt.ids for prompt in pool(inputs, prompts=source, seed=seed)[0]] for seed in (0, 1)}
    plain = [prompt.ids for prompt in pool(inputs)[0]]
    assert drawn[0] != plain
    assert drawn[0] != drawn[1]
