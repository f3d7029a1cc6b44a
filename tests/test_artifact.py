"""Artifacts: written aside, published by one rename, known by their contents."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from llamita import artifact, hashes, processes, working
from llamita.errors import DataError


def make(final: Path, text: str, **manifest: object) -> None:
    with working.open_working(final, {"fingerprint": "f"}, resumable=False) as out:
        (out / "made.txt").write_text(text)
        working.publish(final, {"stage": "maker", **manifest})


def test_names_of_folders() -> None:
    final = Path("runs/smoke/sft")
    partial = artifact.working_folder(final)
    assert partial == Path("runs/smoke/sft.partial")
    for folder in (final, partial):
        assert artifact.stage_name(folder) == "sft"
        assert artifact.run_name(folder) == "smoke"
        assert artifact.final_folder(folder) == final


def test_model_folder(tmp_path: Path) -> None:
    assert artifact.model_folder(tmp_path) == tmp_path
    (tmp_path / "model").mkdir()
    assert artifact.model_folder(tmp_path) == tmp_path / "model"


def test_publish_leaves_only_the_final_folder(tmp_path: Path) -> None:
    make(tmp_path / "sft", "one", note="kept")
    assert [path.name for path in tmp_path.iterdir()] == ["sft"]
    assert sorted(path.name for path in (tmp_path / "sft").iterdir()) == ["made.txt", "manifest.json"]
    manifest = artifact.read_manifest(tmp_path / "sft")
    assert manifest["note"] == "kept"
    assert manifest["hash"] == hashes.content_hash(tmp_path / "sft") == hashes.input_hash(tmp_path / "sft")


def test_publish_replaces_an_old_version(tmp_path: Path) -> None:
    make(tmp_path / "sft", "one")
    old = artifact.read_manifest(tmp_path / "sft")["hash"]
    make(tmp_path / "sft", "two")
    assert [path.name for path in tmp_path.iterdir()] == ["sft"]
    assert (tmp_path / "sft" / "made.txt").read_text() == "two"
    assert artifact.read_manifest(tmp_path / "sft")["hash"] != old


@pytest.mark.parametrize("nth", [0, 1, 2])
def test_a_kill_between_the_renames_is_mended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nth: int
) -> None:
    """Before 0: the old version is moved aside, 1: the new one takes its place, 2: the clean-up."""
    final = tmp_path / "sft"
    make(final, "one")
    steps = 0
    rename, rmtree = Path.rename, working.shutil.rmtree

    def step() -> None:
        nonlocal steps
        if steps == nth:
            raise KeyboardInterrupt
        steps += 1

    def watched_rename(self: Path, target: Path) -> Path:
        step()
        return rename(self, target)

    def watched_rmtree(path: Path, ignore_errors: bool = False) -> None:
        if path.exists():
            step()
        rmtree(path, ignore_errors)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Path, "rename", watched_rename)
        patch.setattr(working.shutil, "rmtree", watched_rmtree)
        make(final, "two")
    working.recover(final)
    assert [path.name for path in tmp_path.iterdir()] == ["sft"]
    assert (final / "made.txt").read_text() == "two"
    assert not (final / artifact.MARKER).exists()


def test_an_old_version_comes_back_where_the_new_one_is_lost(tmp_path: Path) -> None:
    make(tmp_path / "sft", "one")
    (tmp_path / "sft").rename(tmp_path / "sft.replaced")
    working.recover(tmp_path / "sft")
    assert [path.name for path in tmp_path.iterdir()] == ["sft"]


def test_a_backup_of_the_user_stays(tmp_path: Path) -> None:
    for name in ("sft.old", "sft.copy", "sft.bak"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "made.txt").write_text("of last week")
    working.recover(tmp_path / "sft")
    make(tmp_path / "sft", "one")
    make(tmp_path / "sft", "two")
    for name in ("sft.old", "sft.copy", "sft.bak"):
        assert (tmp_path / name / "made.txt").read_text() == "of last week"


def test_recover_leaves_unfinished_work(tmp_path: Path) -> None:
    with working.open_working(tmp_path / "sft", {"fingerprint": "f"}, resumable=True) as out:
        (out / "half.txt").write_text("half")
    working.recover(tmp_path / "sft")
    assert (tmp_path / "sft.partial" / "half.txt").exists()
    assert not (tmp_path / "sft").exists()


@pytest.mark.parametrize(
    ("resumable", "fingerprint", "kept"), [(True, "f", True), (True, "g", False), (False, "f", False)]
)
def test_unfinished_work_is_kept_only_for_the_same_fingerprint(
    tmp_path: Path, resumable: bool, fingerprint: str, kept: bool
) -> None:
    final = tmp_path / "rlhf"
    with working.open_working(final, {"fingerprint": "f"}, resumable) as out:
        (out / "v1").mkdir()
        (out / "v1" / "samples.jsonl").write_text("{}")
    assert working.begun_for(final) == {"fingerprint": "f"}
    with working.open_working(final, {"fingerprint": fingerprint}, resumable) as out:
        assert (out / "v1" / "samples.jsonl").exists() is kept
        assert working.begun_for(final) == {"fingerprint": fingerprint}


def test_two_processes_do_not_share_a_working_folder(tmp_path: Path) -> None:
    code = textwrap.dedent(f"""
        from pathlib import Path
        from llamita import working
        from llamita.errors import LlamitaError
        try:
            with working.open_working(Path({str(tmp_path / "sft")!r}), {{"fingerprint": "f"}}, False):
                pass
        except LlamitaError as error:
            print(error)
    """)
    with working.open_working(tmp_path / "sft", {"fingerprint": "f"}, resumable=False) as out:
        (out / "mine.txt").write_text("mine")
        other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert "another llamita process writes here" in other.stdout
        assert (out / "mine.txt").exists()
    free = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert free.stdout == ""


def _change_content(folder: Path) -> None:
    (folder / "model" / "weights").write_text("other")


def _rename_file(folder: Path) -> None:
    (folder / "model" / "weights").rename(folder / "model" / "weightz")


def _add_file(folder: Path) -> None:
    (folder / "new").write_text("")


def _change_manifest(folder: Path) -> None:
    (folder / "manifest.json").write_text("{}")


def _change_metrics(folder: Path) -> None:
    (folder / "metrics.jsonl").write_text('{"seconds": 3}')


def _add_wandb(folder: Path) -> None:
    (folder / "wandb").mkdir()
    (folder / "wandb" / "log").write_text("now")


def _add_checkpoint(folder: Path) -> None:
    (folder / artifact.RESUME / "checkpoint-10").mkdir(parents=True)
    (folder / artifact.RESUME / "checkpoint-10" / "optimizer.pt").write_text("state")


@pytest.mark.parametrize(
    ("change", "counts"),
    [
        (_change_content, True),
        (_rename_file, True),
        (_add_file, True),
        (_change_manifest, False),
        (_change_metrics, False),
        (_add_wandb, False),
        (_add_checkpoint, False),
    ],
)
def test_content_hash(tmp_path: Path, change: Callable[[Path], None], counts: bool) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "weights").write_text("w")
    before = hashes.content_hash(tmp_path)
    change(tmp_path)
    assert (hashes.content_hash(tmp_path) != before) is counts


def test_input_hash_of_plain_files_and_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data").mkdir()
    file = tmp_path / "data" / "text.txt"
    file.write_text("abc")
    before = {hashes.input_hash(file), hashes.input_hash(tmp_path / "data")}
    os.utime(file, (1, 1))
    assert {hashes.input_hash(file), hashes.input_hash(tmp_path / "data")} == before
    file.write_text("abd")
    assert not {hashes.input_hash(file), hashes.input_hash(tmp_path / "data")} & before
    monkeypatch.setattr(hashes, "BIG_INPUT", 2)
    by_time = hashes.input_hash(file)
    os.utime(file, (2, 2))
    assert hashes.input_hash(file) != by_time
    with pytest.raises(DataError, match="no such file"):
        hashes.input_hash(tmp_path / "nothing")


def test_names_that_are_no_utf_8(tmp_path: Path) -> None:
    """They come in paths, of inputs and of files in them; the end of a training must not fail on one."""
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    folder.mkdir()
    (folder / os.fsdecode(b"\xff.txt")).write_text("text")
    assert hashes.input_hash(folder)
    assert hashes.content_hash(folder)
    assert hashes.digest({"path": str(folder)})
    artifact.write_json(tmp_path / "x.json", {"path": str(folder)})
    assert json.loads((tmp_path / "x.json").read_text(encoding="utf-8")) == {"path": str(folder)}


def test_read_manifest_errors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="expected the folder of a finished stage"):
        artifact.read_manifest(tmp_path)
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(DataError, match=r"manifest\.json: no valid JSON"):
        artifact.read_manifest(tmp_path)
    (tmp_path / "manifest.json").write_text("[]")
    with pytest.raises(DataError, match="expected a JSON object"):
        artifact.read_manifest(tmp_path)


def test_write_json(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    artifact.write_json(path, {"nan": float("nan"), "list": [1.5, float("inf")], "ü": None})
    assert json.loads(path.read_text(encoding="utf-8")) == {"nan": None, "list": [1.5, None], "ü": None}
    assert [file.name for file in tmp_path.iterdir()] == ["x.json"]


def _disk_full(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_full_disk_in_write_json_names_the_file_and_keeps_the_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.json"
    artifact.write_json(path, {"old": 1})
    monkeypatch.setattr(artifact.os, "fsync", _disk_full)
    with pytest.raises(OSError, match="No space left") as caught:
        artifact.write_json(path, {"new": 1})
    assert caught.value.filename == str(path)
    assert json.loads(path.read_text()) == {"old": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["x.json"]


def test_full_disk_while_publishing_publishes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    final = tmp_path / "sft"
    make(final, "one")
    with (
        pytest.raises(OSError, match="No space left") as caught,
        working.open_working(final, {"fingerprint": "f"}, resumable=False) as out,
    ):
        (out / "made.txt").write_text("two")
        monkeypatch.setattr(artifact.os, "fsync", _disk_full)
        working.publish(final, {})
    assert caught.value.filename == str(out / "made.txt")
    monkeypatch.undo()
    working.recover(final)
    assert (final / "made.txt").read_text() == "one"


@pytest.mark.parametrize(("rank", "main"), [(None, True), ("0", True), ("1", False), ("", True)])
def test_is_main_process(monkeypatch: pytest.MonkeyPatch, rank: str | None, main: bool) -> None:
    monkeypatch.delenv("RANK", raising=False)
    if rank is not None:
        monkeypatch.setenv("RANK", rank)
    assert processes.is_main_process() is main
