"""Parts of a stage that are computed once: interrupted, loaded again, damaged."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from llamita.distributed.cached import cached_folder, cached_rows
from llamita.errors import DataError
from llamita.processes import rank

from ..helpers.two_ranks import on_two_ranks


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


def test_rank_0_decides_whether_a_part_exists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def work() -> Any:
        seen = Path.exists
        looks = Counter[Path]()

        def late(path: Path, **options: Any) -> bool:  # a network file system shows it later
            looks[path] += 1
            return looks[path] > 2 and seen(path, **options)

        made = []

        def make() -> list[dict[str, Any]]:
            made.append(1)
            return [{"a": 1}]

        def fill(folder: Path) -> dict[str, Any]:
            (folder / f"of-{rank()}").write_text("x")
            made.append(2)
            return {"b": 2}

        found = []
        for _ in range(2):
            found += [cached_rows(tmp_path / "rows.jsonl", make), cached_folder(tmp_path / "part", fill)]
            if rank() == 1:
                monkeypatch.setattr(Path, "exists", late)
        return found, made

    assert on_two_ranks(work, tmp_path) == [([[{"a": 1}], {"b": 2}] * 2, [1, 2])] * 2
