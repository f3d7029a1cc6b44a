"""Artifacts and working folders that are links to another disk."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from llamita import artifact, hashes, working

from .helpers.working_folders import begin, names, publish


@pytest.fixture
def linked(tmp_path: Path) -> Path:
    """`runs/sft`, a link to a folder on another disk that does not exist yet."""
    (tmp_path / "big").mkdir()
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "sft").symlink_to(tmp_path / "big" / "exp12")
    return tmp_path / "runs" / "sft"


@pytest.mark.parametrize("there", [False, True])
def test_an_artifact_that_is_a_link_stays_one(linked: Path, there: bool) -> None:
    big = linked.parents[1] / "big"
    if there:
        (big / "exp12").mkdir()
    for text in ("one", "two", "three"):
        assert begin(linked, text, text) == text
        assert begin(linked, text) == text  # resumed
        assert names(big) == sorted({*names(big), "exp12.partial"})  # what is made is on the big disk
        publish(linked, text)
        assert (linked / "made.txt").read_text() == text
        assert linked.is_symlink()
        assert names(linked.parent) == ["sft"]
        assert names(big) == ["exp12"]
    begin(linked, "four", "of four")
    begin(linked, "five", "of five")
    assert names(big) == ["exp12", "exp12.partial", "exp12.partial.1"]
    assert begin(linked, "four") == "of four"
    assert artifact.read_manifest(linked)["hash"] == hashes.content_hash(linked)


@pytest.mark.parametrize("nth", [0, 1, 2, 3])
def test_a_kill_while_a_link_is_published_is_repaired(
    linked: Path, monkeypatch: pytest.MonkeyPatch, nth: int
) -> None:
    publish(linked, "one")
    count = 0

    def counted(name: str) -> None:
        original = getattr(Path, name)

        def counting(self: Path, *arguments: Path, **options: bool) -> object:
            nonlocal count
            if working.OLD not in self.name and self.name != artifact.MARKER:
                if count == nth:
                    raise KeyboardInterrupt
                count += 1
            return original(self, *arguments, **options)

        patch.setattr(Path, name, counting)

    with monkeypatch.context() as patch, working.open_working(linked, {"fingerprint": "2"}, True) as out:
        (out / "made.txt").write_text("two")
        artifact.write_json(out / artifact.MANIFEST, {"stage": "maker"})
        counted("rename")
        counted("unlink")
        if nth < 3:
            with pytest.raises(KeyboardInterrupt):
                working._swap(linked)
        else:
            working._swap(linked)
    working.recover(linked)
    assert (linked / "made.txt").read_text() == "two"
    assert names(linked.parent) == ["sft"]
    assert names(linked.parents[1] / "big") == ["exp12"]
    assert linked.is_symlink()


def test_a_link_made_while_the_stage_was_unfinished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The working folder is then on another disk than the artifact: it is copied."""
    final = tmp_path / "sft"
    begin(final, "one", "one")
    (tmp_path / "big").mkdir()
    final.symlink_to(tmp_path / "big" / "sft")
    rename = Path.rename

    def within_a_disk(self: Path, target: Path) -> Path:
        if self.parent != target.parent:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", within_a_disk)
    publish(final, "one")
    assert (tmp_path / "big" / "sft" / "made.txt").read_text() == "one"
    assert names(tmp_path) == ["big", "sft"]
    assert names(tmp_path / "big") == ["sft"]


def test_a_working_folder_that_is_a_link(tmp_path: Path) -> None:
    (tmp_path / "sft.partial").symlink_to(tmp_path / "big")
    assert begin(tmp_path / "sft", "one", "one") == "one"
    assert (tmp_path / "big" / "made.txt").exists()
    publish(tmp_path / "sft", "one")
    assert (tmp_path / "sft" / "made.txt").read_text() == "one"
    assert names(tmp_path) == ["sft"]
