"""Test files of instructed dialogues: which rows and turns are read, and how often."""

from __future__ import annotations

from pathlib import Path

import pytest

from llamita.data.intake import Intake
from llamita.errors import DataError
from llamita.evaluation.instructed import InstructedTests, read_instructed
from llamita.evaluation.settings import RetentionSettings

from ..helpers.rows import write


def test_reading(tmp_path: Path) -> None:
    rows = [{"id": f"g{i}", "instruction": "x", "questions": ["q"] * 20} for i in range(3)]
    write(tmp_path / "gatt.jsonl", rows)
    assert [one.id for one in read_instructed("gatt.jsonl", tmp_path, 2)] == ["g0", "g1"]
    with pytest.raises(DataError, match="3 dialogues; expected at least 4"):
        read_instructed("gatt.jsonl", tmp_path, 4)


@pytest.mark.parametrize(
    "row",
    [{"instruction": "x", "questions": ["q"] * 20}, {"id": "a", "instruction": "x", "questions": ["q"]}],
)
def test_errors_for_broken_rows_have_the_line(tmp_path: Path, row: dict) -> None:
    good = {"id": "a", "instruction": "x", "questions": ["q"] * 20}
    write(tmp_path / "gatt.jsonl", [good, row])
    with pytest.raises(DataError, match=r"gatt\.jsonl:2"):
        read_instructed("gatt.jsonl", tmp_path, 2)


def test_a_repeated_id_is_an_error(tmp_path: Path) -> None:
    """Answers are checked by id: those of one row would be checked by the instruction of the other."""
    rows = [{"id": one, "instruction": "x", "questions": ["q"] * 20} for one in ("a", "b", "a", "c")]
    write(tmp_path / "gatt.jsonl", rows)
    with pytest.raises(DataError, match=r"gatt\.jsonl:3: the id 'a' is that of an earlier row; expected a"):
        read_instructed("gatt.jsonl", tmp_path, 2)
    skipping = Intake(max_bad_rows=1)
    assert [one.id for one in read_instructed("gatt.jsonl", tmp_path, 3, intake=skipping)] == ["a", "b", "c"]
    assert skipping.metrics()["bad_rows"] == 1


@pytest.mark.parametrize(
    ("settings", "expected", "for_versions"),
    [
        ({"turns": 4, "dialogues": 3}, (3, 4), (3, 4)),
        ({"turns": 20, "dialogues": 3}, (3, 20), (3, 10)),
        ({"turns": 6, "dialogues": 4, "version_turns": 8, "version_dialogues": 2}, (4, 6), (2, 8)),
        ({"turns": 4, "dialogues": 2, "version_dialogues": 5}, (2, 4), (5, 4)),
    ],
)
def test_versions_are_tested_on_the_first_dialogues_and_turns(
    tmp_path: Path, settings: dict[str, int], expected: tuple[int, int], for_versions: tuple[int, int]
) -> None:
    rows = [
        {"id": f"g{i}", "instruction": "x", "questions": [f"q{turn}" for turn in range(20)]} for i in range(6)
    ]
    write(tmp_path / "gatt.jsonl", [{"id": "broken"}, *rows])
    intake = Intake(max_bad_rows=1)
    tests = InstructedTests(RetentionSettings(trained="gatt.jsonl", **settings), tmp_path, intake)
    for dialogues, (count, turns) in ((tests.trained, expected), (tests.for_versions, for_versions)):
        assert [dialogue.id for dialogue in dialogues] == [f"g{i}" for i in range(count)]
        assert dialogues[0].questions == [f"q{turn}" for turn in range(turns)]
    assert tests.unseen is None
    assert intake.metrics()["bad_rows"] == 1, "the file is read once"
