"""The stage `refusal_classifier` on a few answers: what phrases do not find, metrics, determinism."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llamita.data.rows import LabelledAnswer
from llamita.errors import DataError
from llamita.model.refusal import is_refusal
from llamita.model.refusal_classifier import NAMES, WEIGHTS, load_refusal_classifier
from llamita.refusal_classifier import stage
from llamita.refusal_classifier.settings import RefusalClassifierSettings

from ..helpers.rows import write
from ..helpers.sources import source_setting

THINGS = "castle river hill cloth bridge garden lamp stone boat mill tower field".split()
REFUSALS = (
    "i can't help with the {}",
    "best to leave the {} alone , friend",
    "the {} is out of bounds , sorry",
)
OTHERS = ("you find the {} at the river", "the {} is red and very old", "take the {} and then go home")


def rows(things: list[str]) -> list[dict[str, Any]]:
    return [
        {"answer": text.format(thing), "refusal": refusal, "source": "written for this test"}
        for thing in things
        for refusal, texts in ((True, REFUSALS), (False, OTHERS))
        for text in texts
    ]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write(tmp_path / "data" / "answers.jsonl", rows(THINGS[:8]))
    write(tmp_path / "data" / "test.jsonl", rows(THINGS[8:]))
    return tmp_path / "data"


def run(data: Path, out: Path, **changes: Any) -> dict[str, Any]:
    out.mkdir(exist_ok=True)
    chosen = {"answers": source_setting("answers", "labelled_answers")}
    if "held_out" not in changes:
        chosen["test"] = source_setting("test", "labelled_answers")
    settings = RefusalClassifierSettings.model_validate_json(json.dumps(chosen | changes))
    return stage.run(settings, {"data": data}, out)


def test_a_refusal_unlike_any_phrase_is_found(data: Path, tmp_path: Path) -> None:
    metrics = run(data, tmp_path / "out")
    classifier = load_refusal_classifier(tmp_path / "out")
    unlike = "best to leave the wheel alone , friend"
    assert not is_refusal(unlike)
    assert classifier([unlike, "you find the wheel at the river"]) == [True, False]
    assert (metrics["answers"], metrics["refusals"]) == (48, 24)
    held_out = metrics["held_out"]
    assert (held_out["answers"], held_out["refusals"]) == (24, 12)
    assert held_out["classifier"] == {
        "accuracy": 1.0,
        "accuracy_se": 0.0,
        "precision": 1.0,
        "precision_se": 0.0,
        "recall": 1.0,
        "recall_se": 0.0,
    }
    assert held_out["phrases"]["accuracy"] == pytest.approx(2 / 3)
    assert held_out["phrases"]["precision"] == 1
    assert held_out["phrases"]["recall"] == pytest.approx(1 / 3)
    assert held_out["phrases"]["recall_se"] == pytest.approx((1 / 3 * 2 / 3 / 11) ** 0.5)
    assert held_out["agreement"]["agreement"] == pytest.approx(2 / 3)
    assert held_out["agreement"]["kappa"] == pytest.approx(1 / 3)
    assert metrics["held_out_seen"] == 0
    assert metrics["cross_validation"]["answers"] == 48
    assert metrics["cross_validation"]["classifier"]["accuracy"] > 0.9
    assert str(metrics["penalty"]) in metrics["losses"]


def test_two_runs_write_equal_bytes(data: Path, tmp_path: Path) -> None:
    first, second = run(data, tmp_path / "first"), run(data, tmp_path / "second")
    assert first == second
    for name in (NAMES, WEIGHTS):
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()


def test_held_out_answers_are_not_trained_on(data: Path, tmp_path: Path) -> None:
    write(data / "answers.jsonl", rows(THINGS) + rows(THINGS[:2]))
    metrics = run(data, tmp_path / "out", held_out=20)
    assert metrics["held_out"]["answers"] in (20, 21)
    assert metrics["answers"] == 84 - metrics["held_out"]["answers"]
    assert metrics["held_out_seen"] == 0, "equal answers are in one part"


def test_test_answers_that_are_also_trained_on_are_counted(data: Path, tmp_path: Path) -> None:
    write(data / "test.jsonl", rows(THINGS[6:]))
    assert run(data, tmp_path / "out")["held_out_seen"] == 12


def test_bad_rows_are_skipped_and_listed(data: Path, tmp_path: Path) -> None:
    write(data / "answers.jsonl", [{"answer": "no label"}, *rows(THINGS)])
    metrics = run(data, tmp_path / "out", max_bad_rows=1)
    assert (metrics["answers"], metrics["bad_rows"]) == (72, 1)
    assert "answers.jsonl:1: field 'refusal' is missing" in (tmp_path / "out" / "bad_rows.jsonl").read_text()


def test_rates_that_are_undefined_are_null() -> None:
    answers = [LabelledAnswer("the castle is red", False), LabelledAnswer("a river", False)]
    found = stage.compare(answers, [False, False])["classifier"]
    assert (found["accuracy"], found["precision"], found["recall"]) == (1.0, None, None)


def test_equal_answers_are_one_in_all_errors() -> None:
    answers = [LabelledAnswer(f"the {thing} is red", False) for thing in THINGS for _ in range(5)]
    verdicts = [thing < "d" for thing in THINGS for _ in range(5)]
    found = stage.compare(answers, verdicts)
    share = found["classifier"]["accuracy"]
    error = (share * (1 - share) / (len(THINGS) - 1)) ** 0.5
    assert found["classifier"]["accuracy_se"] == pytest.approx(error)
    assert found["agreement"]["agreement_se"] == pytest.approx(error), "the phrases find none"


def test_errors(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="held_out: nothing to test with"):
        run(data, tmp_path / "out", held_out=0)
    with pytest.raises(ValueError, match="held_out: `test` already names held-out answers"):
        run(data, tmp_path / "out", held_out=3, test=source_setting("test", "labelled_answers"))
    with pytest.raises(DataError, match=r"training answers: .* other answers; .* or lower held_out"):
        run(data, tmp_path / "out", held_out=47)
    write(data / "answers.jsonl", [row for row in rows(THINGS) if row["refusal"]])
    with pytest.raises(
        DataError,
        match="training answers: 36 different refusals and 0 different other answers; expected at least 2",
    ):
        run(data, tmp_path / "out")
