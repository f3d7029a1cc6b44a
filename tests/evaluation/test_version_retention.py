"""Retention of versions on dialogues counted by hand."""

from __future__ import annotations

import pytest

from llamita.evaluation.instructed import InstructedDialogue
from llamita.evaluation.version_retention import compare_retention, report_outgrown


def dialogues(turns: int, *instructions: str) -> list[InstructedDialogue]:
    return [InstructedDialogue(f"g{place}", one, ["q"] * turns) for place, one in enumerate(instructions)]


def test_the_mean_over_turns_counts_every_turn_and_complete_dialogues_only() -> None:
    """Dialogue 0 follows until turn 3, 1 always, 2 exceeds the context after turn 8."""
    followed = {str(turn): [float(turn <= 3), 1.0, None if turn > 8 else 0.0, 0.0] for turn in range(1, 21)}
    found = compare_retention({"sft": followed}, dialogues(10, "a", "b", "c"))["version_retention"]["sft"]
    assert found["1"] == found["2"] == pytest.approx(2 / 3)
    assert found["4"] == found["6"] == pytest.approx(1 / 3)
    assert found["10"] == 0.5
    assert found["20"] is None
    assert found["1-10"] == pytest.approx((0.3 + 1.0) / 2)
    assert found["1-10_se"] == pytest.approx(0.35)


def test_differences_are_paired_by_dialogue() -> None:
    sft = {str(turn): [1.0, 1.0, 0.0, None if turn > 5 else 1.0] for turn in range(1, 11)}
    v1 = {str(turn): [1.0, 0.0, 0.0, 1.0] for turn in range(1, 11)}
    found = compare_retention({"sft": sft, "v1": v1}, dialogues(10, "a", "b", "c", "d"))
    assert list(found["version_retention_differences"]) == ["v1"]
    apart = found["version_retention_differences"]["v1"]
    assert (apart["1"], apart["6"]) == (-0.25, pytest.approx(-1 / 3))
    assert apart["1-10"] == pytest.approx(-1 / 3), "dialogue d ended before turn 10 with sft"
    assert apart["1-10_se"] == pytest.approx(1 / 3)
    assert apart.keys() == found["version_retention"]["sft"].keys()


def test_errors_are_clustered_by_instruction() -> None:
    followed = {str(turn): [1.0, 1.0, 0.0, 0.0] for turn in range(1, 11)}
    found = compare_retention({"sft": followed}, dialogues(10, "a", "a", "b", "b"))["version_retention"][
        "sft"
    ]
    assert found["1-10_se"] == pytest.approx(0.5)


def test_few_turns_have_no_mean_over_ten() -> None:
    followed = {str(turn): [1.0, 0.0] for turn in range(1, 5)}
    found = compare_retention({"sft": followed}, dialogues(4, "a", "b"))["version_retention"]["sft"]
    assert (found["4"], found["6"], found["1-10"]) == (0.5, None, None)


def test_dialogues_over_the_context_are_reported(capsys: pytest.CaptureFixture[str]) -> None:
    report_outgrown("v1", {"1": [1.0, 1.0], "2": [1.0, 0.0]})
    assert capsys.readouterr().out == ""
    report_outgrown("v1", {"1": [1.0, 1.0], "2": [1.0, None]})
    printed = " ".join(capsys.readouterr().out.split())
    assert "warning: retention v1: 1 of 2 dialogues exceeded the context length" in printed
    assert "(turn 1: 2, turn 2: 1)" in printed
