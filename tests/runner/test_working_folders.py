"""Working folders of a pipeline's stages: resumed or set aside, and links to another disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from llamita import artifact
from llamita.config import load_settings
from llamita.runner import execution, stages

from ..helpers.text_pipeline import plan, replace, run
from ..helpers.text_stages import FakeStages
from ..helpers.working_folders import names


def test_settings_without_effect_neither_restart_nor_rerun_a_stage(project: Path, fake: FakeStages) -> None:
    def kill(out: Path) -> None:
        raise KeyboardInterrupt

    fake.during["final"] = kill
    with pytest.raises(KeyboardInterrupt):
        run()
    assert plan("final.logging=5")["final"] == "unfinished, resumes"
    del fake.during["final"]
    run("final.logging=5")
    assert Path("runs/tiny/final/begun.log").read_text() == "begun\nbegun\n"
    assert set(plan("final.logging=7").values()) == {"finished"}
    assert artifact.read_manifest(Path("runs/tiny/final"))["settings"]["logging"] == 5


def test_changed_settings_are_reported_before_work_is_set_aside(
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
        "(rounds: 2 -> 3; contents of input model); restarts, and the unfinished work is set aside)"
    )
    assert aside.startswith("final: unfinished work was moved to ")
    replace("configs/base.yaml", "4", "3")
    del fake.during["final"]
    run()
    assert Path("runs/tiny/final/begun.log").read_text() == "begun\nbegun\n"


def test_an_output_that_is_a_link_keeps_its_name(project: Path, fake: FakeStages, tmp_path: Path) -> None:
    Path("alone").symlink_to(tmp_path / "big_alone")
    Path("text.txt").write_text("given")
    given = ["inputs.model=text.txt", "output=alone"]
    settings = load_settings(project / "chat.yaml", stages.settings_class("taker"), given)
    stage_run = stages.standalone_run("taker", settings, project / "chat.yaml")
    execution.execute(stage_run)
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
        assert set(plan(f"chat.style={style}").values()) == {"finished"}
    assert artifact.read_manifest(Path("runs/tiny/chat"))["name"] == "chat"
    assert names(Path("runs/tiny")) == ["base", "chat", "final"]
