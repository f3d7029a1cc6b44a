"""Test prompts that occur in training rows are found through the manifests of the stages."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llamita.evaluation.prompts import EvaluationPrompt, Kind
from llamita.evaluation.training_rows import compare_with_training
from llamita.report.collect import empty_report
from llamita.report.notes import notes

from ..helpers.rows import turn, write


def prompt(text: str, kind: Kind = "ordinary", *before: dict[str, str]) -> EvaluationPrompt:
    messages: Any = [*before, {"role": "user", "content": text}]
    return EvaluationPrompt(kind, "", messages, [])


def sources(*names: str, format: str = "messages", **more: Any) -> list[dict[str, Any]]:
    return [{"path": f"{name}.jsonl", "format": format, **more} for name in names]


def stage(root: Path, name: str, kind: str, settings: dict[str, Any], **inputs: str) -> Path:
    folder = root / name
    folder.mkdir(parents=True)
    taken = {key: {"path": str(root / path), "hash": "h"} for key, path in inputs.items()}
    manifest = {"stage": kind, "name": name, "settings": settings, "inputs": taken}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    data = tmp_path / "data"
    (tmp_path / "pretrain").mkdir()
    several = [*turn("What is a?", "it is red"), *turn("and b?", "blue")]
    write(data / "dialogues.jsonl", [{"messages": several}, {"messages": turn("who?", "me")}, {"broken": 1}])
    write(data / "pairs.jsonl", [{"prompt": turn("how?"), "chosen": "so", "rejected": "no"}])
    write(data / "test_pairs.jsonl", [{"prompt": turn("held out?"), "chosen": "so", "rejected": "no"}])
    write(data / "prompts.jsonl", [{"messages": turn("when?"), "is_safety": True}])
    write(tmp_path / "gatt" / "gatt.jsonl", [{"messages": turn("where?", "here"), "instruction": "be kind"}])
    chosen = {"dialogues": sources("dialogues"), "ghost_attention": sources("gatt"), "distillation": []}
    stage(tmp_path, "sft", "sft", chosen, data="data", gatt="gatt", model="pretrain")
    pairs = {"comparisons": sources("pairs", format="comparison"), "evasions": None}
    pairs["test"] = sources("test_pairs", format="comparison")
    stage(tmp_path, "safety", "reward", pairs, data="data", model="sft")
    prompts = {"prompts": sources("prompts", format="prompts", instruction_share=0.5)}
    stage(tmp_path, "v1/ppo", "ppo", prompts, data="data", start="sft", safety="safety")
    return tmp_path


def test_prompts_are_found_in_all_stages_before(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prompts = [
        prompt("  what IS\na? "),
        prompt("and b?", "ordinary", *turn("hello", "hi")),
        prompt("when?", "harmful"),
        prompt("how?", "harmful"),
        prompt("where?", "borderline", {"role": "system", "content": "be brief"}),
        prompt("held out?", "borderline"),
        prompt("it is red"),
        prompt("what is a? and more"),
    ]
    found = compare_with_training(prompts, {"v1/ppo": root / "v1" / "ppo"})
    assert found == {
        "prompts": {"ordinary": 2, "harmful": 2, "borderline": 1},
        "stages": {
            "v1/ppo": {"rows": 1, "prompts": {"ordinary": 0, "harmful": 1, "borderline": 0}},
            "sft": {"rows": 3, "prompts": {"ordinary": 2, "harmful": 0, "borderline": 1}},
            "safety": {"rows": 1, "prompts": {"ordinary": 0, "harmful": 1, "borderline": 0}},
        },
        "not_compared": {},
    }
    shown = capsys.readouterr().out
    assert "warning: 2 of 4 ordinary test prompts occur in training rows: sft (2)" in shown
    assert "warning: 2 of 2 harmful test prompts occur in training rows: v1/ppo (1), safety (1)" in shown


def test_stages_of_the_same_name_are_apart(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The versions of two runs: the first has the prompt in its rows, the second has not."""
    write(root / "data" / "other.jsonl", [{"messages": turn("new?", "yes")}])
    other = stage(root / "other", "sft", "sft", {"dialogues": sources("other")}, data="../data")
    found = compare_with_training([prompt("who?")], {"v1": root / "sft", "v2": other})
    assert {name: one["prompts"]["ordinary"] for name, one in found["stages"].items()} == {
        "sft": 1,
        "sft (2)": 0,
    }
    assert "occur in training rows: sft (1)" in capsys.readouterr().out
    (root / "data" / "other.jsonl").unlink()
    found = compare_with_training(
        [prompt("who?")], {"sft": root / "pretrain", "v1": root / "sft", "v2": other}
    )
    assert list(found["not_compared"]) == ["sft", "sft (2)"]


def test_a_stage_before_that_is_missing_is_named(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "sft").rename(root / "moved")
    found = compare_with_training([prompt("who?")], {"v1/ppo": root / "v1" / "ppo"})
    assert list(found["stages"]) == ["v1/ppo", "safety"]
    assert found["not_compared"] == {"input start of v1/ppo": f"{root}/sft does not exist"}
    shown = " ".join(capsys.readouterr().out.split())
    assert f"not compared with the training rows of input start of v1/ppo: {root}/sft does not exist" in shown


def test_none_is_found(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = compare_with_training([prompt("new?")], {"sft": root / "sft", "safety": root / "safety"})
    assert found["prompts"] == {"ordinary": 0}
    assert "no test prompt occurs in a training row of sft, safety" in capsys.readouterr().out


def test_what_cannot_be_compared_is_named(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "plain").mkdir()
    (root / "data" / "pairs.jsonl").unlink()
    inputs = {"sft": root / "plain", "safety": root / "safety"}
    found = compare_with_training([prompt("how?"), prompt("who?")], inputs)
    assert found["prompts"] == {"ordinary": 1}
    assert list(found["stages"]) == ["sft"]  # from which the safety model was trained
    assert found["not_compared"]["sft"] == "not the output of a stage"
    assert "pairs.jsonl" in found["not_compared"]["safety"]
    assert "not compared with the training rows of safety" in capsys.readouterr().out
    report = empty_report() | {"training_rows": found}
    assert [note.split(":")[0] for note in notes(report)["versions"]] == [
        "1 ordinary test prompts occur in rows that the models were trained on (sft",
        "Test prompts were not compared with the training rows of sft",
        "Test prompts were not compared with the training rows of safety",
    ]
