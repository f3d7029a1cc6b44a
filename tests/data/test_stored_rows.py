"""Rows that are read once: what a second start and other ranks get."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llamita.data.held_out import hash_fraction, opening
from llamita.data.intake import Intake
from llamita.data.rows import Comparison, Dialogue
from llamita.data.sources import stream_comparisons
from llamita.data.stored_rows import Joined, StoredRows, store_rows
from llamita.errors import DataError

from ..helpers.rows import turn, write
from ..helpers.sources import read_comparisons, source
from ..helpers.two_ranks import on_two_ranks


@pytest.fixture
def data(tmp_path: Path) -> Path:
    good = [
        {"prompt": turn(f"is it {n} ?"), "chosen": "yes\u2028", "rejected": "no", "chosen_safe": True}
        for n in range(5)
    ]
    write(tmp_path / "rows.jsonl", [*good[:3], {"prompt": "hi"}, {**good[0], "chosen": " "}, *good[3:]])
    write(tmp_path / "more.jsonl", [{**good[0], "rating": "better", "note": "x"}])
    return tmp_path


def store(
    data: Path, intake: Intake, *, identity: str = "", calls: list[str] | None = None
) -> tuple[StoredRows[Comparison], dict[str, range]]:
    def read(path: str) -> Any:
        def rows(intake: Intake) -> Iterator[Comparison]:
            if calls is not None:
                calls.append(path)
            return stream_comparisons(source("comparison", path), data, intake)

        return rows

    groups = {"first": read("rows.jsonl"), "none": lambda _: (), "second": read("more.jsonl")}
    return store_rows(
        data / "out",
        Comparison,
        groups,
        identity={"of": identity},
        sources=[(source("comparison", path), data) for path in ("rows.jsonl", "more.jsonl")],
        intake=intake,
        seed=3,
    )


def test_rows_and_groups_are_those_of_the_readers(data: Path) -> None:
    intake, expected_intake = Intake(1), Intake(1)
    rows, groups = store(data, intake)
    expected = [
        *read_comparisons(source("comparison", "rows.jsonl"), data, expected_intake),
        *read_comparisons(source("comparison", "more.jsonl"), data, expected_intake),
    ]
    assert list(rows) == [rows[index] for index in range(len(rows))] == expected
    assert rows[-1] == expected[-1]
    assert rows[1:3] == expected[1:3]
    assert groups == {"first": range(5), "none": range(5, 5), "second": range(5, 6)}
    assert intake.metrics() == expected_intake.metrics()
    assert intake.metrics()["bad_rows"] == 1
    assert intake.metrics()["ignored_fields"] == {"note": 1}
    assert rows.rows["fraction"][:] == [hash_fraction(opening(row), 3) for row in expected]


def test_a_second_start_reads_nothing_and_counts_the_same(data: Path) -> None:
    first, second = Intake(1), Intake(1)
    calls: list[str] = []
    rows, groups = store(data, first, calls=calls)
    again, same_groups = store(data, second, calls=calls)
    assert calls == ["rows.jsonl", "more.jsonl"]
    assert (list(again), same_groups, again.identity) == (list(rows), groups, rows.identity)
    assert second.metrics() == first.metrics()
    assert second.bad_rows == first.bad_rows
    store(data, Intake(1), identity="other", calls=calls)
    assert len(calls) == 4


def test_a_changed_file_is_read_again(data: Path) -> None:
    """Nothing else notices that a source outside of the inputs changes between a kill and the next start."""
    before, _ = store(data, Intake(1))
    text = (data / "more.jsonl").read_text()
    (data / "more.jsonl").write_text(text.replace("is it 0 ?", "is it 9 ?"))  # of the same size
    after, _ = store(data, Intake(1))
    assert "9" in opening(after[-1])
    assert "9" not in opening(before[-1])
    assert after.identity != before.identity, "rows that are made of them are outdated, too"


def test_a_lower_limit_of_bad_rows_counts(data: Path) -> None:
    store(data, Intake(1))
    with pytest.raises(DataError, match=r"rows.jsonl:4: "):
        store(data, Intake(0))
    with pytest.raises(DataError, match=r"rows.jsonl:4: "):
        store(data, Intake(0))


def test_two_ranks_read_once(data: Path) -> None:
    def work() -> Any:
        intake = Intake(1)
        calls: list[str] = []
        rows, _ = store(data, intake, calls=calls)
        return list(rows), intake.metrics(), intake.bad_rows, calls

    (rows, metrics, bad, calls), other = on_two_ranks(work, data)
    assert calls == ["rows.jsonl", "more.jsonl"]
    assert other == (rows, metrics, bad, [])


def test_joined_rows() -> None:
    parts = [Dialogue(turn("a", "b"))], [], [Dialogue(turn(str(n), "c")) for n in range(3)]
    joined = Joined(*parts)
    expected = [*parts[0], *parts[2]]
    assert len(joined) == 4
    assert list(joined) == expected
    assert [joined[index] for index in (-1, 0, 1)] == [expected[index] for index in (-1, 0, 1)]
    assert joined[1:] == expected[1:]
    with pytest.raises(IndexError):
        joined[4]
