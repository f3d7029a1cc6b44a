"""Labelling by people: the file to label, the labels that are read back, and their errors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llamita.errors import DataError, LlamitaError
from llamita.red_team.answers import Answer
from llamita.red_team.judges import judge_by_ratings
from llamita.red_team.people import read_ratings
from llamita.red_team.settings import PeopleJudge

from ..helpers.red_team import answer_of
from ..helpers.rows import write


@pytest.fixture
def answers() -> dict[str, Answer]:
    made = [answer_of(f"answer {n}", request=f"question {n} ?") for n in range(6)]
    return {one.content: one for one in made}


def judge(tmp_path: Path, labels: str = "labels.jsonl") -> PeopleJudge:
    return PeopleJudge(by="people", to_label=str(tmp_path / "to_label.jsonl"), labels=str(tmp_path / labels))


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_first_run_writes_what_to_label_and_says_what_to_do(
    answers: dict[str, Answer], tmp_path: Path
) -> None:
    with pytest.raises(LlamitaError, match=r"6 of 6 answers have no label in .*labels\.jsonl; rate those"):
        read_ratings(judge(tmp_path), answers, 0)
    written = rows(tmp_path / "to_label.jsonl")
    assert sorted(row["answer"] for row in written) == [f"answer {n}" for n in range(6)]
    assert [row["id"] for row in written] != sorted(answers), "shuffled"
    for row in written:
        assert row.keys() == {"id", "prompt", "answer"}, "blind to the version"
        assert row["prompt"] == answers[row["id"]].messages[0]["content"]
    again = (tmp_path / "to_label.jsonl").read_bytes()
    with pytest.raises(LlamitaError):
        read_ratings(judge(tmp_path), dict(reversed(answers.items())), 0)
    assert (tmp_path / "to_label.jsonl").read_bytes() == again, "the order depends on the seed only"
    with pytest.raises(LlamitaError):
        read_ratings(judge(tmp_path), answers, 1)
    assert (tmp_path / "to_label.jsonl").read_bytes() != again


def test_missing_labels_are_counted(answers: dict[str, Answer], tmp_path: Path) -> None:
    write(tmp_path / "labels.jsonl", [{"id": name, "rating": 4} for name in list(answers)[:4]])
    with pytest.raises(LlamitaError, match="2 of 6 answers have no label"):
        read_ratings(judge(tmp_path), answers, 0)


def test_labels_of_several_raters_are_read_from_jsonl_and_csv(
    answers: dict[str, Answer], tmp_path: Path
) -> None:
    labels = [
        {"id": name, "rating": 1 + (number + shift) % 5, "rater": rater}
        for number, name in enumerate(answers)
        for shift, rater in enumerate(["ann", "bob"])
    ]
    write(tmp_path / "labels.jsonl", labels)
    lines = ["id,rating,rater", *(f"{row['id']},{row['rating']},{row['rater']}" for row in labels)]
    (tmp_path / "labels.csv").write_text("\n".join(lines) + "\n")
    from_jsonl = read_ratings(judge(tmp_path), answers, 0)
    assert from_jsonl == read_ratings(judge(tmp_path, "labels.csv"), answers, 0)
    assert list(from_jsonl.values())[4] == {"ann": 5, "bob": 1}


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"id": "ID", "rating": 6}, r"rating 6; expected a whole number from 1 to 5"),
        ({"id": "ID", "rating": 2.5}, r"rating 2\.5; expected"),
        ({"id": "ID", "rating": True}, "rating True; expected"),
        ({"id": "ID", "rating": "bad"}, "rating 'bad'; expected"),
        ({"id": "ID", "rating": ""}, "rating ''; .*remove rows that are not rated yet"),
        ({"id": "ID", "rating": None}, "rating None; expected"),
        ({"id": "ID"}, "field 'rating' is missing; the row has the fields id"),
        ({"id;rating": "ID;3"}, "field 'id' is missing; the row has the fields id;rating"),  # as Excel writes
        ({"id": "elsewhere", "rating": 3}, "id 'elsewhere' is not one of the 6 answers"),
        ({"id": None, "rating": 3}, "id None is not one of"),
        ({"id": [1], "rating": 3}, r"id \[1\] is not one of"),
        ({"id": "FIRST", "rating": 3}, "id '.*' has a second rating without a rater"),
        ({"id": "ID", "rating": 3, "rater": 7}, "rater 7 is int; expected text"),
        ("[3]\n", "the row is a list"),
    ],
)
def test_a_wrong_row_is_an_error_with_file_line_and_value(
    answers: dict[str, Answer], tmp_path: Path, row: Any, problem: str
) -> None:
    first, second, *_ = answers
    if isinstance(row, dict) and row.get("id") in ("ID", "FIRST"):
        row = row | {"id": second if row["id"] == "ID" else first}
    write(tmp_path / "labels.jsonl", [{"id": first, "rating": 4}, row])
    with pytest.raises(DataError, match=rf"labels\.jsonl:2: {problem}"):
        read_ratings(judge(tmp_path), answers, 0)


def test_the_majority_decides_and_a_tie_is_a_violation() -> None:
    made = [answer_of(f"answer {n}") for n in range(5)]
    ratings = [{"a": 2, "b": 3}, {"a": 2, "b": 3, "c": 4}, {"a": 1, "b": 2, "c": 5}, {"a": 3}, {}]
    by_content = {one.content: found for one, found in zip(made, ratings, strict=True)}
    judgements = judge_by_ratings({"v": made}, by_content)["v"]
    assert [judgement.violation for judgement in judgements] == [True, False, True, False, None]
