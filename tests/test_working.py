"""Working folders: resumed, set aside for other settings, and artifacts that are links to another disk."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from llamita import artifact, working
from llamita.config import load_settings
from llamita.errors import LlamitaError
from llamita.runner import stages

from .conftest import FakeStages, replace
from .runner.test_pipeline import plan, run


def begin(final: Path, fingerprint: str, text: str = "") -> str:
    """Begins or resumes a stage, which adds `text` to what it has made; returns all of that."""
    with working.open_working(final, {"fingerprint": fingerprint}, resumable=True) as out:
        with (out / "made.txt").open("a") as file:
            file.write(text)
        return (out / "made.txt").read_text()


def publish(final: Path, text: str) -> None:
    with working.open_working(final, {"fingerprint": text}, resumable=True) as out:
        (out / "made.txt").write_text(text)
        working.publish(final, {"stage": "maker"})


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# ------------------------------------------------------------------------------------------- set aside


def test_work_begun_for_other_settings_is_set_aside_and_found_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    final = tmp_path / "sft"
    begin(final, "a", "of a")
    assert begin(final, "b", "of b") == "of b"
    assert f"sft: what was made so far is kept in {tmp_path}/sft.partial.1" in capsys.readouterr().out
    assert begin(final, "a", ", more") == "of a, more"
    assert names(tmp_path) == ["sft.partial", "sft.partial.2"]
    assert begin(final, "b") == "of b"
    publish(final, "a")
    assert begin(final, "b") == "of b"  # whatever is published in between


def test_few_folders_stay_aside_and_the_oldest_is_told_before_it_is_deleted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rmtree = working.shutil.rmtree
    told: list[str] = []

    def watched(path: Path, ignore_errors: bool = False) -> None:
        if path.exists():
            told.append(capsys.readouterr().out)
        rmtree(path, ignore_errors)

    monkeypatch.setattr(working.shutil, "rmtree", watched)
    for name in "abcde":
        begin(tmp_path / "sft", name, name)
    assert names(tmp_path) == ["sft.partial", *(f"sft.partial.{n}" for n in (2, 3, 4))]
    assert f"{tmp_path}/sft.partial.1: deleted" in told[0]
    assert len(told) == 1


def test_what_holds_no_work_is_not_set_aside(tmp_path: Path) -> None:
    for name in "ab":
        begin(tmp_path / "sft", name)
    assert names(tmp_path) == ["sft.partial"]


def test_settings_without_effect_neither_discard_nor_redo(project: Path, fake: FakeStages) -> None:
    def kill(out: Path) -> None:
        raise KeyboardInterrupt

    fake.during["final"] = kill
    with pytest.raises(KeyboardInterrupt):
        run()
    assert plan("final.logging=5")["final"] == "unfinished, goes on"
    del fake.during["final"]
    run("final.logging=5")
    assert Path("runs/tiny/final/begun.log").read_text() == "begun\nbegun\n"
    assert set(plan("final.logging=7").values()) == {"done"}
    assert artifact.read_manifest(Path("runs/tiny/final"))["settings"]["logging"] == 5


def test_changed_settings_are_told_before_work_is_set_aside(
    project: Path, fake: FakeStages, capsys: pytest.CaptureFixture[str]
) -> None:
    def kill(out: Path) -> None:
        raise KeyboardInterrupt

    fake.during["final"] = kill
    with pytest.raises(KeyboardInterrupt):
        run()
    replace("configs/base.yaml", "3", "4")
    capsys.readouterr()
    with pytest.raises(KeyboardInterrupt):
        run("final.rounds=3")
    last, aside = capsys.readouterr().out.splitlines()[-2:]
    assert last.endswith(
        "(rounds: 2 -> 3; input model has other contents); "
        "starts again, and what was made so far is set aside"
    )
    assert aside.startswith("final: what was made so far is kept in ")
    replace("configs/base.yaml", "4", "3")
    del fake.during["final"]
    run()
    assert Path("runs/tiny/final/begun.log").read_text() == "begun\nbegun\n"


# ------------------------------------------------------------------------------------------- links


@pytest.fixture
def linked(tmp_path: Path) -> Path:
    """`runs/sft`, a link to a folder on another disk that is not there yet."""
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
    assert artifact.read_manifest(linked)["hash"] == artifact.content_hash(linked)


@pytest.mark.parametrize("nth", [0, 1, 2, 3])
def test_a_kill_while_a_link_is_published_is_mended(
    linked: Path, monkeypatch: pytest.MonkeyPatch, nth: int
) -> None:
    publish(linked, "one")
    steps = 0

    def counted(name: str) -> None:
        original = getattr(Path, name)

        def step(self: Path, *arguments: Path, **options: bool) -> object:
            nonlocal steps
            if working.OLD not in self.name and self.name != artifact.MARKER:
                if steps == nth:
                    raise KeyboardInterrupt
                steps += 1
            return original(self, *arguments, **options)

        patch.setattr(Path, name, step)

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


def test_a_mount_point_is_refused_at_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sft").mkdir()
    monkeypatch.setattr(Path, "is_mount", lambda self: self.name == "sft")
    with pytest.raises(LlamitaError, match="mount point can't be replaced"):
        begin(tmp_path / "sft", "one")


def test_an_output_that_is_a_link_keeps_its_name(project: Path, fake: FakeStages, tmp_path: Path) -> None:
    Path("alone").symlink_to(tmp_path / "big_alone")
    Path("text.txt").write_text("given")
    given = ["inputs.model=text.txt", "output=alone"]
    settings = load_settings(project / "chat.yaml", stages.settings_class("taker"), given)
    step = stages.single_step("taker", settings, project / "chat.yaml")
    stages.execute(step)
    assert fake.ran == ["alone"]
    assert artifact.read_manifest(tmp_path / "big_alone")["name"] == "alone"
    assert Path("alone").is_symlink()


def test_a_pipeline_whose_stage_is_a_link(project: Path, fake: FakeStages, tmp_path: Path) -> None:
    """A changed setting, and every command after it."""
    Path("runs/tiny").mkdir(parents=True)
    Path("runs/tiny/chat").symlink_to(tmp_path / "big_chat")
    run()
    for style in ("polite", "curt"):
        run(f"chat.style={style}")
        assert style in (tmp_path / "big_chat" / "made.txt").read_text()
        assert set(plan(f"chat.style={style}").values()) == {"done"}
    assert artifact.read_manifest(Path("runs/tiny/chat"))["name"] == "chat"
    assert names(Path("runs/tiny")) == ["base", "chat", "final"]
