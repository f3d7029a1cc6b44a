"""Parts of a stage that are computed once: interrupted, loaded again, damaged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llamita.distributed.cached import cached_folder, cached_rows
from llamita.errors import DataError


def test_an_interrupted_part_leaves_nothing_under_its_final_name(tmp_path: Path) -> None:
    def half(folder: Path) -> dict[str, Any]:
        (folder / "weights").write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        cached_folder(tmp_path / "part", half)
    assert not (tmp_path / "part").exists()
    cached_folder(tmp_path / "part", lambda folder: {"left": len(list(folder.iterdir()))})
    assert cached_folder(tmp_path / "part", half) == {"left": 0}

    def rows() -> Any:
        yield {"a": 1}
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cached_rows(tmp_path / "rows.jsonl", rows)
    assert not (tmp_path / "rows.jsonl").exists()
    whole = [{"a": "é"}, {"a": ""}]
    assert cached_rows(tmp_path / "rows.jsonl", lambda: whole) == whole
    assert cached_rows(tmp_path / "rows.jsonl", rows) == whole
    assert cached_rows(tmp_path / "none.jsonl", list) == []


def test_the_error_for_a_damaged_file_names_its_line(tmp_path: Path) -> None:
    path = tmp_path / "samples.jsonl"
    path.write_text('{"prompt": 0}\n{"prompt": 1, "ans\n')
    with pytest.raises(DataError, match=r"samples\.jsonl:2: "):
        cached_rows(path, list)
