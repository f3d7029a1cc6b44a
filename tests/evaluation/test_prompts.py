"""Which test prompts and dialogues are accepted: room in the smallest context, ids of the ground truth."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from llamita.data.intake import Intake
from llamita.errors import DataError
from llamita.evaluation import stage
from llamita.evaluation.prompts import EvaluationPrompt, read_evaluation_prompts

from ..helpers.rows import turn, write
from ..helpers.tiny_evaluation import settings, with_everything


def read(inputs: dict[str, Path], tokenizer: Any, context: int) -> tuple[list[EvaluationPrompt], Any]:
    chosen = settings(prompts={"ordinary": [{"path": "test/ordinary.jsonl", "format": "prompts"}]})
    return read_evaluation_prompts(chosen, inputs["data"], tokenizer, context=context, intake=Intake())


def test_an_eos_fits_behind_the_longest_answer(inputs: dict[str, Path], tokenizer: Any) -> None:
    """Reward models read it; beyond their context some have no position."""
    lengths = [len(prompt.ids) for prompt in read(inputs, tokenizer, 1000)[0]]
    needed = max(lengths) + settings().max_new_tokens + 1
    assert len(read(inputs, tokenizer, needed)[0]) == len(lengths)
    fewer, counts = read(inputs, tokenizer, needed - 1)
    assert len(fewer) == sum(length < max(lengths) for length in lengths)
    assert counts["ordinary"]["too_long"] == len(lengths) - len(fewer) > 0


def test_a_kind_whose_prompts_are_all_too_long_is_an_error(inputs: dict[str, Path], tokenizer: Any) -> None:
    with pytest.raises(DataError, match=r"^ordinary test prompts: all 20 are too long: .*\(6\) .* 10 tokens"):
        read(inputs, tokenizer, 10)


def test_prompts_of_diversity_that_are_all_too_long_are_an_error(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    write(tmp_path / "long.jsonl", [{"messages": turn("so " * 5000)}])
    diversity = {
        "factual": [{"path": "test/ordinary.jsonl", "format": "prompts"}],
        "creative": [{"path": str(tmp_path / "long.jsonl"), "format": "prompts"}],
    }
    few = {name: inputs[name] for name in ("data", "sft")}
    with pytest.raises(DataError, match=r"^creative prompts of diversity: all 1 are too long"):
        stage.run(settings(retention=None, diversity=diversity), few, tmp_path / "out")
    assert not (tmp_path / "out" / "versions").exists(), "before anything is sampled"


@pytest.mark.parametrize("short", ["sft", "versions.v2/ppo", "ablations.sft_ungated", "safety", "judge"])
def test_the_smallest_context_is_that_of_any_model(
    inputs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, short: str
) -> None:
    changed = with_everything(inputs)
    changed[short] = shutil.copytree(changed[short], tmp_path / "short")
    file = tmp_path / "short" / "model" / "config.json"
    config = json.loads(file.read_text())
    file.write_text(json.dumps(config | {"max_position_embeddings": 99}))
    found: list[int] = []

    def stopped(*_: object, context: int, **__: object) -> None:
        found.append(context)
        raise KeyError

    monkeypatch.setattr(stage, "read_evaluation_prompts", stopped)
    with pytest.raises(KeyError):
        stage.run(settings(), changed, tmp_path / "out")
    assert found == [99]
    assert config["max_position_embeddings"] > 99


def test_gold_needs_the_ids_of_its_world(inputs: dict[str, Path], tmp_path: Path) -> None:
    write(
        tmp_path / "prompts.jsonl", [{"id": "other-1", "messages": [{"role": "user", "content": "hello !"}]}]
    )
    foreign = {"path": str(tmp_path / "prompts.jsonl"), "format": "prompts"}
    for kind in ("ordinary", "borderline"):
        prompts = {"ordinary": [{"path": "test/ordinary.jsonl", "format": "prompts"}], kind: [foreign]}
        with pytest.raises(
            DataError, match=rf"^prompts\.{kind}: the ground truth .* no prompt .*'other-1'; use"
        ):
            stage.run(settings(prompts=prompts, retention=None), inputs, tmp_path / "out")
    check = {"kind": "no_commas", "value": ""}
    write(
        tmp_path / "test.jsonl",
        [{"id": f"t{n}", "instruction": "x", "check": check, "questions": ["q"] * 4} for n in range(3)],
    )
    retention = {"trained": "test.jsonl", "turns": 4, "dialogues": 3}
    with pytest.raises(
        DataError, match=r"^retention test row 't0': the ground truth .* no dialogue with this id"
    ):
        stage.run(settings(retention=retention), inputs | {"gatt": tmp_path}, tmp_path / "out")
    assert not (tmp_path / "out").exists(), "before anything is sampled"
