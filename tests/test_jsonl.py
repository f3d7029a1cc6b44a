"""JSONL that a stage writes and reads again."""

from __future__ import annotations

from pathlib import Path

import pytest

from llamita.errors import DataError
from llamita.jsonl import read_rows, write_rows


def test_what_is_written_is_read(tmp_path: Path) -> None:
    strange = [{"a": "é"}, {"a": "one\u2028two\x85three\x0bfour\r\nfive"}, {"a": ""}]
    for rows in (strange, []):
        write_rows(tmp_path / "new" / "rows.jsonl", iter(rows))
        assert read_rows(tmp_path / "new" / "rows.jsonl") == rows


def test_rows_that_fail_half_way_leave_no_file(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        write_rows(tmp_path / "rows.jsonl", ({"a": 1 / (1 - number)} for number in range(2)))
    assert not (tmp_path / "rows.jsonl").exists()


@pytest.mark.parametrize(("line", "reason"), [('{"ans', "no valid JSON"), ("[1]", "expected a JSON object")])
def test_a_broken_line_is_named(tmp_path: Path, line: str, reason: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(f'{{"prompt": 0}}\n{line}\n')
    with pytest.raises(DataError, match=rf"rows\.jsonl:2: {reason}.*delete the file to make it again"):
        read_rows(path)
