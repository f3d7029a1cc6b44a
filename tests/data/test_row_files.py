"""Folders of rows: parts, kills, seals, and several ranks."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from llamita.data import row_files
from llamita.data.row_files import (
    IDS,
    Columns,
    IdLists,
    RowFolder,
    SealedRows,
    column,
    row_batches,
)
from llamita.distributed import group

from ..helpers.two_ranks import on_two_ranks

SCHEMA = pa.schema({"ids": IDS, "weight": pa.float32()})
ROWS = 47
IDS_OF = [list(range(row, row + row % 5)) for row in range(ROWS)]


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of 12 rows: four of them."""
    monkeypatch.setattr(row_files, "BATCH_ROWS", 4)
    monkeypatch.setattr(row_files, "PART_BATCHES", 3)


class Killed(BaseException):
    pass


def batches(done: int, stop: int | None = None, started: list[int] | None = None) -> Iterator[Columns]:
    if started is not None:
        started.append(done)
    for rows in row_batches(range(ROWS), done):
        if stop is not None and rows[0] >= stop:
            raise Killed
        yield {"ids": [IDS_OF[row] for row in rows], "weight": [row / 3 for row in rows]}


def write(folder: Path, identity: Any = 1, **options: Any) -> SealedRows:
    return rows_in(folder, identity).write(lambda done: batches(done, **options), lambda: {"rows": ROWS})


def rows_in(folder: Path, identity: Any = 1) -> RowFolder:
    return RowFolder(folder, SCHEMA, {"seed": identity})


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_rows_are_read_as_they_were_written(tmp_path: Path) -> None:
    sealed = write(tmp_path)
    assert rows_in(tmp_path).sealed() == sealed
    assert sealed.facts == {"rows": ROWS}
    assert list(sealed.parts) == [f"part-0000{number}.arrow" for number in range(4)]
    rows = sealed.open()
    assert rows["ids"][:] == IDS_OF
    assert rows["weight"][:] == [pytest.approx(row / 3) for row in range(ROWS)]
    assert [file["filename"] for file in rows.cache_files] == [str(tmp_path / name) for name in sealed.parts]


def test_ids_are_views_into_the_file(tmp_path: Path) -> None:
    ids = IdLists(column(write(tmp_path).open(), "ids"))
    assert ids.lengths.tolist() == [len(row) for row in IDS_OF]
    assert [ids[row].tolist() for row in range(ROWS)] == IDS_OF
    assert ids[7].dtype == np.int32
    assert not ids[7].flags.owndata
    assert not ids[7].flags.writeable


@pytest.mark.parametrize(("stop", "done"), [(0, 0), (8, 0), (12, 12), (30, 24), (44, 36)])
def test_a_killed_writer_resumes_after_its_last_complete_part(tmp_path: Path, stop: int, done: int) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    write(whole)
    with pytest.raises(Killed):
        write(killed, stop=stop)
    assert rows_in(killed).sealed() is None
    (killed / "part.tmp").write_bytes(b"torn")
    started: list[int] = []
    write(killed, started=started)
    assert started == [done]
    (killed / "part.tmp").unlink(missing_ok=True)
    assert contents(killed) == contents(whole), "the same bytes"


def test_rows_of_another_identity_are_not_used(tmp_path: Path) -> None:
    write(tmp_path)
    assert rows_in(tmp_path, 2).sealed() is None
    started: list[int] = []
    write(tmp_path, 2, started=started)
    assert started == [0]
    assert rows_in(tmp_path, 1).sealed() is None
    with pytest.raises(Killed):
        write(tmp_path, 1, stop=30)
    started = []
    write(tmp_path, 2, started=started)
    assert started == [0], "nor are their parts"


@pytest.mark.parametrize("damage", ["short", "missing", "seal"])
def test_damaged_rows_are_made_again(tmp_path: Path, damage: str, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path)
    whole = contents(tmp_path)
    part = tmp_path / "part-00001.arrow"
    if damage == "short":
        os.truncate(part, part.stat().st_size - 8)
    elif damage == "missing":
        part.unlink()
    else:
        (tmp_path / "rows.json").write_text('{"identity"')
    assert rows_in(tmp_path).sealed() is None
    assert ("making the rows again" in capsys.readouterr().out) == (damage != "seal")
    write(tmp_path)
    assert contents(tmp_path) == whole


def test_a_kill_while_damaged_rows_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path)
    whole = contents(tmp_path)
    os.truncate(tmp_path / "part-00001.arrow", 8)

    def killed(folder: Path, **_: Any) -> None:
        (folder / "rows.json").unlink()
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(row_files.shutil, "rmtree", killed)
        write(tmp_path)
    write(tmp_path)
    assert contents(tmp_path) == whole


def test_no_rows(tmp_path: Path) -> None:
    rows = rows_in(tmp_path).write(lambda _: ()).open()
    assert len(rows) == 0
    assert IdLists(column(rows, "ids")).lengths.tolist() == []


def test_a_full_disk_is_reported_with_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        if Path(f"/proc/self/fd/{descriptor}").readlink().name == "part.tmp":
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(row_files.os, "fsync", full)
    with pytest.raises(OSError, match=r"No space left on device: '.*part.tmp'"):
        write(tmp_path)


def test_two_ranks_map_what_one_of_them_has_made(tmp_path: Path) -> None:
    def work() -> tuple[Any, int]:
        made: list[int] = []
        sealed = group.once("rows", lambda: write(tmp_path / "rows", started=made))
        return [file["filename"] for file in sealed.open().cache_files], len(made)

    (first, made), (second, also) = on_two_ranks(work, tmp_path)
    assert first == second
    assert len(first) == 4
    assert (made, also) == (1, 0)
