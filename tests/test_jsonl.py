"""JSONL: rows are read as written, broken lines are errors, an incomplete last line can be dropped."""

from __future__ import annotations

from pathlib import Path

import pytest

from llamita.errors import DataError
from llamita.jsonl import append_row, read_rows, write_rows


def test_rows_come_back_as_they_were_written(tmp_path: Path) -> None:
    rows = [{"text": "line\u2028end"}, {"text": "né"}, {"path": "half \udce9 name"}, {"n": 1}]
    path = tmp_path / "made" / "rows.jsonl"
    assert write_rows(path, iter(rows[:3])) == 3
    with path.open("a", encoding="utf-8") as file:
        append_row(file, rows[3])
    assert read_rows(path) == rows
    assert "né" in path.read_text(encoding="utf-8")
    assert write_rows(path, []) == 0
    assert read_rows(path) == []


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"{", r"invalid JSON \(.*\)"),
        (b"", r"invalid JSON \(.*\)"),
        (b'{"a": "\xff"}', r"invalid JSON \('utf-8' codec .*\)"),
        (b"[" * 100_000, r"invalid JSON \(.*recursion.*\)"),
        (b"[1, 2]", r"expected a JSON object, found \[1, 2\]"),
    ],
)
def test_a_broken_line_is_named_with_what_to_do(tmp_path: Path, line: bytes, expected: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"a": 1}\n' + line + b"\n")
    with pytest.raises(DataError, match=rf"rows\.jsonl:2: {expected}; delete the file to write it again"):
        read_rows(path)
    with pytest.raises(DataError, match=rf"rows\.jsonl:2: {expected}; run it again"):
        read_rows(path, remedy="run it again", may_end_torn=True)  # a whole line is none that a kill cut


def test_half_a_line_at_the_end_is_dropped_where_a_kill_may_have_cut_it(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"step": 1}\n{"step"')
    assert read_rows(path, may_end_torn=True) == [{"step": 1}]
    with pytest.raises(DataError, match=r"rows\.jsonl:2: invalid JSON"):
        read_rows(path)
    path.write_bytes(b'{"step": 1}\n{"step": 2}')
    assert len(read_rows(path, may_end_torn=True)) == 2


def test_rows_that_fail_half_way_leave_no_file(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        write_rows(tmp_path / "rows.jsonl", ({"a": 1 / (1 - number)} for number in range(2)))
    assert not (tmp_path / "rows.jsonl").exists()
