"""Comparisons of reference answers with evasions: which are made, trained on and held out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llamita.data.held_out import opening
from llamita.data.intake import Intake
from llamita.data.rows import Comparison
from llamita.errors import DataError
from llamita.model.checkpoint import load_tokenizer
from llamita.reward import stage
from llamita.reward.evasions import evasive_comparisons
from llamita.reward.settings import EvasionSettings, RewardSettings

from ..helpers.material import HELPFULNESS, SAFETY, write_data
from ..helpers.reward import read_pairs, settings
from ..helpers.rows import turn, write
from ..helpers.sources import source_setting
from ..helpers.tiny import save_tiny_model

REFUSALS = ("thanks bolo", "again bolo")
EVASIONS: dict[str, Any] = {
    "dialogues": source_setting("ordinary", "messages"),
    "answers": source_setting("answers", "labelled_answers"),
    "count": 20,
    "held_out": 6,
}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("inputs")
    data = write_data(root / "data")
    rows = [{"messages": turn(f"is it {number} ?", f"it is {number}")} for number in range(30)]
    rows += [
        {"messages": turn("is it 3 ?", "it is not")},  # repeated
        {"messages": turn("is it 40 ?", f"{REFUSALS[0]} ")},  # its reference answer is a refusal
        {
            "messages": [
                {"role": "system", "content": "be fine"},
                *turn("is it 50 ?", "no"),
                *turn("is it 51 ?", "yes"),
            ]
        },
    ]
    write(data / "ordinary.jsonl", rows)
    labelled = [(answer, True) for answer in REFUSALS] + [("it is red", False)]
    write(
        root / "refusals" / "answers.jsonl",
        [{"answer": text, "refusal": refusal} for text, refusal in labelled],
    )
    model = save_tiny_model(root / "sft" / "model", tokenizer, spread=0.05).parent
    return {"model": model, "data": data, "refusals": root / "refusals"}


def evasive(inputs: dict[str, Path], seed: int = 0) -> tuple[list[Comparison], Intake]:
    intake = Intake()
    chosen = EvasionSettings.model_validate(EVASIONS)
    return evasive_comparisons(chosen, inputs["data"], inputs["refusals"], seed=seed, intake=intake), intake


def test_the_reference_answer_is_chosen_over_a_refusal(inputs: dict[str, Path]) -> None:
    rows, intake = evasive(inputs)
    assert len(rows) == len({opening(row) for row in rows}) == 31
    assert intake.skipped == {"evasions: the reference answer is a refusal": 1}
    assert {row.rejected for row in rows} == set(REFUSALS), (
        "both occur, an answer that is no refusal does not"
    )
    assert {row.rating for row in rows} == {"significantly_better"}
    assert (rows[3].prompt, rows[3].chosen) == (turn("is it 3 ?"), "it is 3")
    assert (rows[-1].context, rows[-1].chosen) == ("instruction_multi_turn", "yes")
    assert evasive(inputs)[0] == rows
    assert [row.rejected for row in evasive(inputs, seed=1)[0]] != [row.rejected for row in rows]


def pairs_of(inputs: dict[str, Path], evasions: dict[str, Any] = EVASIONS, **changes: Any) -> Any:
    chosen = settings(HELPFULNESS, evasions=evasions, **changes)
    tokenizer = load_tokenizer(inputs["model"])
    return read_pairs(chosen, inputs["data"], tokenizer, answers_root=inputs["refusals"])


def test_no_prompt_is_both_trained_and_held_out(inputs: dict[str, Path]) -> None:
    """Neither an evasion's prompt among the held-out comparisons, nor the other way round."""
    data = inputs["data"]
    more = [
        {"prompt": turn(f"is it {number} ?"), "chosen": "yes", "rejected": "bolo"} for number in range(30)
    ]
    trained, tested = more[:25], more[25:]
    write(data / "both.jsonl", [*trained, {**more[0], "prompt": turn("red ?")}])
    write(data / "both_test.jsonl", tested)
    pairs, held_out, counts = pairs_of(
        inputs,
        comparisons=source_setting("both", "comparison"),
        test=source_setting("both_test", "comparison"),
    )
    assert not {opening(pair.comparison) for pair in pairs} & {opening(pair.comparison) for pair in held_out}
    assert [pair.evasion for pair in held_out] == [False] * 5 + [True] * 6
    assert counts["evasion_pairs"] == sum(pair.evasion for pair in pairs) == 20
    assert counts["train_pairs"] == len(pairs)
    held_out_prompts = {opening(pair.comparison) for pair in held_out if pair.evasion}
    lost = sum(json.dumps([f"is it {number} ?"]) in held_out_prompts for number in range(25))
    assert lost > 0
    assert len(pairs) == 20 + 26 - lost
    assert counts["skipped"]["its prompt is held out"] == 5 + lost


def test_too_few_prompts(inputs: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    few = EVASIONS | {"count": 100}
    _, _, counts = pairs_of(inputs, few)
    assert counts["evasion_pairs"] == 31 - 6
    assert "evasions: only 31 usable prompts; count and held_out need 106" in capsys.readouterr().out
    with pytest.raises(DataError, match="31 usable prompts, of which held_out: 31 are held out"):
        pairs_of(inputs, EVASIONS | {"held_out": 31})
    write(inputs["refusals"] / "none.jsonl", [{"answer": "it is red", "refusal": False}])
    with pytest.raises(DataError, match=r"none of the answers in none\.jsonl is labelled as a refusal"):
        pairs_of(inputs, EVASIONS | {"answers": source_setting("none", "labelled_answers")})


def test_the_stage_learns_them_and_reports_their_accuracy(inputs: dict[str, Path], tmp_path: Path) -> None:
    trainer = HELPFULNESS["trainer"] | {"num_train_epochs": 4}
    metrics = stage.run(settings(HELPFULNESS, evasions=EVASIONS, trainer=trainer), inputs, tmp_path)
    assert metrics["pairs"] == 24, "evasions are counted apart"
    assert metrics["evasions"]["pairs"] == metrics["evasions"]["prompts"] == 6
    assert metrics["evasions"]["accuracy"] == 1
    assert metrics["evasions"]["accuracy_se"] == 0
    assert metrics["train_pairs"] == 64 + 20


def test_evasions_are_not_for_the_safety_model() -> None:
    with pytest.raises(ValueError, match="`evasions` are not for kind 'safety'"):
        settings(SAFETY, evasions=EVASIONS)
    assert settings(HELPFULNESS, kind="general", evasions=EVASIONS).evasions is not None


def test_labelled_answers_are_below_their_own_input() -> None:
    chosen: RewardSettings = settings(HELPFULNESS, evasions=EVASIONS)
    data, refusals = Path("data"), Path("refusals")
    read = chosen.data_read({"model": data, "data": data, "refusals": refusals})
    assert [source.path for source in read["refusals"]] == ["answers.jsonl"]
    assert [source.path for source in read["data"]] == [
        "helpfulness.jsonl",
        "helpfulness_test.jsonl",
        "ordinary.jsonl",
    ]
    assert len(chosen.data_read({"data": data})["data"]) == 4
