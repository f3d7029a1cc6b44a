"""Working folders: resumed, set aside, and published by one rename."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from llamita import artifact, hashes, working
from llamita.errors import LlamitaError

from .helpers.working_folders import begin, names, publish


def test_work_with_other_settings_is_set_aside_and_resumed_later(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    final = tmp_path / "sft"
    begin(final, "a", "of a")
    assert begin(final, "b", "of b") == "of b"
    assert f"sft: unfinished work was moved to {tmp_path}/sft.partial.1" in capsys.readouterr().out
    assert begin(final, "a", ", more") == "of a, more"
    assert names(tmp_path) == ["sft.partial", "sft.partial.2"]
    assert begin(final, "b") == "of b"
    publish(final, "a")
    assert begin(final, "b") == "of b"  # also after something was published in between


def test_the_oldest_set_aside_folder_is_reported_and_deleted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rmtree = working.shutil.rmtree
    printed: list[str] = []

    def watched(path: Path, ignore_errors: bool = False) -> None:
        if path.exists():
            printed.append(capsys.readouterr().out)
        rmtree(path, ignore_errors)

    monkeypatch.setattr(working.shutil, "rmtree", watched)
    for name in "abcde":
        begin(tmp_path / "sft", name, name)
    assert names(tmp_path) == ["sft.partial", *(f"sft.partial.{n}" for n in (2, 3, 4))]
    assert f"{tmp_path}/sft.partial.1: deleted" in printed[0]
    assert len(printed) == 1


def test_what_holds_no_work_is_not_set_aside(tmp_path: Path) -> None:
    for name in "ab":
        begin(tmp_path / "sft", name)
    assert names(tmp_path) == ["sft.partial"]


def test_a_mount_point_is_refused_at_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sft").mkdir()
    monkeypatch.setattr(Path, "is_mount", lambda self: self.name == "sft")
    with pytest.raises(LlamitaError, match="is a mount point, which cannot be replaced"):
        begin(tmp_path / "sft", "one")


def make(final: Path, text: str, **manifest: object) -> None:
    with working.open_working(final, {"fingerprint": "f"}, resumable=False) as out:
        (out / "made.txt").write_text(text)
        working.publish(final, {"stage": "maker", **manifest})


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
def test_a_kill_between_the_renames_is_repaired(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nth: int
) -> None:
    """Before 0: the old version is moved aside, 1: the new one takes its place, 2: the clean-up."""
    final = tmp_path / "sft"
    make(final, "one")
    count = 0
    rename, rmtree = Path.rename, working.shutil.rmtree

    def count_and_kill() -> None:
        nonlocal count
        if count == nth:
            raise KeyboardInterrupt
        count += 1

    def watched_rename(self: Path, target: Path) -> Path:
        count_and_kill()
        return rename(self, target)

    def watched_rmtree(path: Path, ignore_errors: bool = False) -> None:
        if path.exists():
            count_and_kill()
        rmtree(path, ignore_errors)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Path, "rename", watched_rename)
        patch.setattr(working.shutil, "rmtree", watched_rmtree)
        make(final, "two")
    working.recover(final)
    assert [path.name for path in tmp_path.iterdir()] == ["sft"]
    assert (final / "made.txt").read_text() == "two"
    assert not (final / artifact.MARKER).exists()


def test_the_old_version_is_restored_if_the_new_one_is_lost(tmp_path: Path) -> None:
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
    assert working.unfinished_identity(final) == {"fingerprint": "f"}
    with working.open_working(final, {"fingerprint": fingerprint}, resumable) as out:
        assert (out / "v1" / "samples.jsonl").exists() is kept
        assert working.unfinished_identity(final) == {"fingerprint": fingerprint}


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
        assert "another llamita process uses this folder" in other.stdout
        assert (out / "mine.txt").exists()
    free = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert free.stdout == ""


def _disk_full(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


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


def test_a_kill_while_the_marker_is_written_leaves_nothing_to_set_aside(tmp_path: Path) -> None:
    (tmp_path / "sft.partial").mkdir()
    (tmp_path / "sft.partial" / "unfinished.json.tmp").write_text('{"fingerprint": "f", "sett')
    with working.open_working(tmp_path / "sft", {"fingerprint": "f"}, resumable=True):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["sft.partial"]
    assert [path.name for path in (tmp_path / "sft.partial").iterdir()] == ["unfinished.json"]
