"""The pipeline: finished stages are skipped, changed ones rerun; with stages that write text."""

from __future__ import annotations

import errno
import os
import re
import sys
import weakref
from collections.abc import Sequence
from pathlib import Path

import pytest

from llamita import artifact, hashes, working
from llamita.config import load_settings
from llamita.errors import ConfigError, Interrupted, LlamitaError, RolledBack
from llamita.runner import execution, identity, launcher, pipeline, schedule, stages

from ..helpers.text_pipeline import plan, problem, replace, run
from ..helpers.text_stages import FakeStages

# ------------------------------------------------------------------------------------------- running


def test_runs_in_order_and_publishes(project: Path, fake: FakeStages) -> None:
    assert plan() == {
        "base": "first run",
        "chat": "first run, after base",
        "final": "first run, after chat",
    }
    run()
    assert fake.ran == ["base", "chat", "final"]
    assert sorted(path.name for path in Path("runs/tiny").iterdir()) == ["base", "chat", "final"]
    manifest = artifact.read_manifest(Path("runs/tiny/chat"))
    assert manifest["stage"] == "taker"
    assert manifest["name"] == "chat"
    assert manifest["settings"] == {"seed": 7, "style": "plain"}
    assert manifest["metrics"] == {"parts": 3, "seed": 7}
    base = Path("runs/tiny/base").absolute()
    assert manifest["inputs"] == {"model": {"path": str(base), "hash": hashes.content_hash(base)}}
    assert manifest["wall_seconds"] >= 0
    assert manifest["processes"] == 1
    assert {"llamita", "python", "torch", "trl"} <= manifest["versions"].keys()
    assert manifest["git_commit"] is None or re.fullmatch(r"[0-9a-f]{40}(-dirty)?", manifest["git_commit"])


def test_a_second_run_has_nothing_to_do(
    project: Path, fake: FakeStages, capsys: pytest.CaptureFixture[str]
) -> None:
    run()
    assert set(plan().values()) == {"finished"}
    fake.ran.clear()
    capsys.readouterr()
    run()
    assert fake.ran == []
    assert capsys.readouterr().out.splitlines()[0] == "[1/3] base: skipped, already finished"


def test_planning_what_is_done_imports_no_torch(
    project: Path, fake: FakeStages, monkeypatch: pytest.MonkeyPatch
) -> None:
    run()
    for library in ("torch", "transformers", "trl"):
        monkeypatch.setitem(sys.modules, library, None)  # importing it now raises ImportError
    chosen = schedule.plan(pipeline.read_pipeline("configs/pipeline.yaml"))
    pipeline.check_trainers([item for item in chosen if item.status and not item.status.done])
    schedule.run(chosen)


def test_a_changed_setting_reruns_its_stage_and_the_stages_that_depend_on_it(
    project: Path, fake: FakeStages, capsys: pytest.CaptureFixture[str]
) -> None:
    run()
    fake.ran.clear()
    replace("configs/chat.yaml", "plain", "polite")
    assert plan() == {
        "base": "finished",
        "chat": 'changed: style: "plain" -> "polite"',
        "final": "reruns only if chat changes its inputs",
    }
    capsys.readouterr()
    run()
    assert fake.ran == ["chat", "final"]
    assert "[3/3] final: running (changed: contents of input model)" in capsys.readouterr().out


def test_a_stage_that_waits_for_another_shows_its_own_changes(project: Path, tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("one")
    replace("configs/pipeline.yaml", "{model: base}", "{model: base, data: texts}")
    replace("configs/pipeline.yaml", "data: texts", "data: ../texts")
    run()
    assert plan("base.words=4")["chat"] == "reruns only if base changes its inputs"
    both = plan("base.words=4", "chat.style=polite")
    assert both["chat"] == 'changed: style: "plain" -> "polite"; runs after base'
    (tmp_path / "texts" / "a.txt").write_text("two")
    assert plan("base.words=4")["chat"] == "changed: contents of input data; runs after base"


def test_unchanged_contents_do_not_rerun_later_stages(project: Path, fake: FakeStages) -> None:
    run()
    fake.ran.clear()
    run("base.trainer.learning_rate=0.5")  # the fake's text does not depend on it
    assert fake.ran == ["base"]


def test_the_pipelines_seed_is_the_default_of_every_stage(project: Path) -> None:
    replace("configs/chat.yaml", "style", "seed: 3\nstyle")
    stage_runs = [item.stage_run for item in pipeline.read_pipeline("configs/pipeline.yaml", ["seed=9"])]
    assert [stage_run.settings.seed for stage_run in stage_runs] == [9, 3, 9]


def test_global_generators_are_seeded_for_each_stage(project: Path, fake: FakeStages) -> None:
    import torch

    drawn: list[float] = []
    fake.during["chat"] = lambda out: drawn.append(float(torch.rand(())))
    run()
    run("chat.style=other")  # this time without `base` before it
    assert drawn[0] == drawn[1]


def test_a_changed_version_of_the_code(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run()
    monkeypatch.setattr(identity, "__version__", "9.0")
    assert plan()["base"].startswith("changed: llamita ")
    assert plan()["base"].endswith(" -> 9.0")


def test_the_deepspeed_file_counts_by_its_content(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "0")  # as if under a launcher
    Path("configs/zero.json").write_text('{"stage": 2}')
    replace("configs/base.yaml", "words", "deepspeed: zero.json\nwords")
    run()
    Path("configs/zero.json").rename("configs/zero2.json")
    replace("configs/base.yaml", "zero.json", "zero2.json")
    assert plan()["base"] == "finished"
    Path("configs/zero2.json").write_text('{"stage": 3}')
    assert plan()["base"] == "changed: deepspeed.stage: 2 -> 3"


def test_until_and_from(project: Path, fake: FakeStages) -> None:
    run(last="chat")
    assert fake.ran == ["base", "chat"]
    replace("configs/base.yaml", "3", "4")
    run(first="final")  # uses the earlier outputs without checking them
    assert fake.ran == ["base", "chat", "final"]
    with pytest.raises(ConfigError, match="--until caht: no such stage; did you mean 'chat'"):
        run(last="caht")
    with pytest.raises(ConfigError, match="--from final comes after --until base"):
        run(first="final", last="base")


def test_from_a_stage_whose_input_is_missing(project: Path, fake: FakeStages) -> None:
    with pytest.raises(LlamitaError, match=r"stage 'chat' needs .*base, which does not exist"):
        run(first="chat")
    assert fake.ran == []


def test_inputs_from_roots_and_paths(project: Path, tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("from the root")
    (tmp_path / "configs" / "near.txt").write_text("from the path")
    replace("configs/pipeline.yaml", "{model: base}", "{model: near.txt, data: data}")
    run("roots.data=texts")
    assert "from the root" in Path("runs/tiny/chat/made.txt").read_text()
    assert "from the path" in Path("runs/tiny/chat/made.txt").read_text()
    (tmp_path / "texts" / "a.txt").write_text("changed")
    assert plan("roots.data=texts")["chat"] == "changed: contents of input data"
    message = problem()
    assert (
        "pipeline.yaml:3: roots.data: no folder given; add roots.data=FOLDER to the command line" in message
    )


# ------------------------------------------------------------------------------------------- failing


def test_a_failed_stage_restarts_in_an_empty_folder(project: Path, fake: FakeStages) -> None:
    def fail(out: Path) -> None:
        (out / "half.txt").write_text("half")
        raise ValueError("broken")

    fake.during["chat"] = fail
    with pytest.raises(ValueError, match="broken"):
        run()
    assert Path("runs/tiny/base").is_dir()
    assert not Path("runs/tiny/chat").exists()
    assert Path("runs/tiny/chat.partial/half.txt").exists()
    assert plan()["chat"] == "unfinished, restarts (this stage cannot resume)"
    del fake.during["chat"]
    run()
    assert fake.ran == ["base", "chat", "chat", "final"]
    assert sorted(path.name for path in Path("runs/tiny/chat").iterdir()) == [
        "begun.log",
        "made.txt",
        "manifest.json",
    ]


def test_a_resumable_stage_resumes_in_its_folder(project: Path, fake: FakeStages) -> None:
    def kill(out: Path) -> None:
        raise KeyboardInterrupt

    fake.during["final"] = kill
    with pytest.raises(KeyboardInterrupt):
        run()
    assert plan()["final"] == "unfinished, resumes"
    assert plan("final.rounds=3")["final"] == (
        "unfinished, started with other settings or inputs (rounds: 2 -> 3); "
        "restarts, and the unfinished work is set aside"
    )
    del fake.during["final"]
    run()
    assert Path("runs/tiny/final/begun.log").read_text() == "begun\nbegun\n"
    assert not Path("runs/tiny/final", artifact.MARKER).exists()


def test_wall_seconds_of_a_resumed_stage_include_earlier_attempts(
    project: Path, fake: FakeStages, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [1000.0]
    monkeypatch.setattr(working.time, "monotonic", lambda: clock[0])

    def interrupted(out: Path) -> None:
        clock[0] += 60
        raise KeyboardInterrupt

    for name in ("chat", "final"):  # the fake `chat` restarts each time, `final` resumes
        fake.during[name] = interrupted
        with pytest.raises(KeyboardInterrupt):
            run()
        with pytest.raises(KeyboardInterrupt):
            run()
        clock[0] += 500  # in between nothing runs
        fake.during[name] = lambda out: clock.__setitem__(0, clock[0] + 5)
    run()
    took = [artifact.read_manifest(Path("runs/tiny", name))["wall_seconds"] for name in ("chat", "final")]
    assert took == [5, 125]


def test_a_stage_that_was_rolled_back_is_run_again(
    project: Path, fake: FakeStages, capsys: pytest.CaptureFixture[str]
) -> None:
    def roll_back(out: Path) -> None:
        if len((out / "begun.log").read_text().splitlines()) < 3:
            raise RolledBack("the loss of stage_run 7 is not a number")

    alive = []

    class Model:
        """A part of a model, which its trainer and the trainer's callbacks refer to in a circle."""

    def roll_back_with_a_model(out: Path) -> None:
        alive.append([model() is not None for model in models])
        model = Model()
        model.trainer = model  # type: ignore[attr-defined]
        models.append(weakref.ref(model))
        roll_back(out)

    models: list[weakref.ref[Model]] = []
    fake.during["final"] = roll_back_with_a_model
    run()
    assert alive == [[], [False], [False, False]], "the memory of the model of the attempt before is free"
    assert fake.ran == ["base", "chat", "final", "final", "final"]
    assert Path("runs/tiny/final/begun.log").read_text() == "begun\n" * 3
    assert capsys.readouterr().out.count("final: the loss of stage_run 7 is not a number") == 2


def test_a_rank_leaves_the_restart_after_a_rollback_to_the_launcher(
    project: Path, fake: FakeStages, monkeypatch: pytest.MonkeyPatch
) -> None:
    def roll_back(out: Path) -> None:
        raise RolledBack("the loss of stage_run 7 is not a number")

    fake.during["base"] = roll_back
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(RolledBack):
        run()
    assert fake.ran == ["base"]


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/big/weights.bin"),
        RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"),
    ],
)
def test_a_full_disk_is_reported_and_nothing_is_published(
    project: Path, fake: FakeStages, error: Exception
) -> None:
    def full(out: Path) -> None:
        raise error

    fake.during["chat"] = full
    with pytest.raises(
        LlamitaError, match=r"no space left on the disk: stage 'chat' could not write"
    ) as caught:
        run()
    assert (getattr(error, "filename", None) or "chat.partial") in str(caught.value)
    assert not Path("runs/tiny/chat").exists()


def test_a_kill_while_publishing_is_repaired_by_the_next_run(
    project: Path, fake: FakeStages, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(working, "_swap", killed)
        run()
    assert not Path("runs/tiny/base").exists()
    run()
    assert fake.ran == ["base", "chat", "final"]  # `base` was complete


def test_folders_of_others_are_never_replaced(project: Path, fake: FakeStages) -> None:
    Path("runs/tiny/base").mkdir(parents=True)
    Path("runs/tiny/base/thesis.txt").write_text("years of work")
    with pytest.raises(LlamitaError, match="llamita did not write it"):
        run()
    assert Path("runs/tiny/base/thesis.txt").exists()
    artifact.write_json(Path("runs/tiny/base/manifest.json"), {"stage": "taker"})
    with pytest.raises(LlamitaError, match="holds the output of stage kind 'taker', expected 'maker'"):
        run()
    assert fake.ran == []


def test_a_folder_of_others_is_found_before_any_stage_runs(project: Path, fake: FakeStages) -> None:
    Path("runs/tiny/final").mkdir(parents=True)  # of a stage whose inputs do not exist yet
    Path("runs/tiny/final/thesis.txt").write_text("years of work")
    with pytest.raises(LlamitaError, match=r"tiny/final: exists, and llamita did not write it"):
        run()
    assert fake.ran == []


def test_ranks_other_than_0_only_run_the_stage(
    project: Path, fake: FakeStages, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage_run = pipeline.read_pipeline("configs/pipeline.yaml")[0].stage_run
    working = artifact.working_folder(stage_run.final)
    working.mkdir(parents=True)
    (working / "of_rank_0.txt").write_text("kept")
    monkeypatch.setenv("RANK", "1")
    execution.execute(stage_run)
    assert fake.ran == ["base"]
    assert (working / "of_rank_0.txt").exists()
    assert not (working / artifact.MANIFEST).exists()
    assert not stage_run.final.exists()


# ------------------------------------------------------------------------------------------- launching


def test_a_deepspeed_stage_gets_processes_of_its_own(
    project: Path, fake: FakeStages, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("configs/zero.json").write_text('{"stage": 2}')
    replace("configs/base.yaml", "words", "deepspeed: zero.json\nwords")
    replace("configs/pipeline.yaml", "config: base.yaml", "config: base.yaml, processes: 2")
    started: list[list[str]] = []

    def run_group(arguments: Sequence[str], environment: dict[str, str]) -> int:
        started.append(list(arguments))
        assert environment["DS_ACCELERATOR"] == "cpu"
        monkeypatch.setenv("RANK", "0")  # what rank 0 does with the settings that it is given
        resolved = Path(arguments[-3])
        settings = load_settings(resolved, stages.settings_class("maker"))
        execution.execute(stages.standalone_run("maker", settings, resolved))
        monkeypatch.delenv("RANK")
        return 0

    monkeypatch.setattr(launcher, "_gpus_visible", lambda: False)
    monkeypatch.setattr(launcher, "run_launcher", run_group)
    run()
    (arguments,) = started
    assert "deepspeed.launcher.runner" in arguments
    assert arguments[arguments.index("--num_accelerators") + 1] == "2"
    assert arguments[arguments.index("--module") + 1 :] == [
        "llamita.cli",
        "maker",
        str(Path("runs/tiny/base.settings.json").absolute()),
        "--name",
        "base",
    ]
    assert not Path("runs/tiny/base.settings.json").exists()
    assert plan()["base"] == "finished"  # rank 0 came to the same fingerprint
    monkeypatch.setattr(launcher, "run_launcher", lambda *_: 1)
    with pytest.raises(LlamitaError, match="failed under the deepspeed launcher"):
        run("base.words=5")
    codes = iter([RolledBack.exit_code, RolledBack.exit_code, Interrupted.exit_code])
    monkeypatch.setattr(launcher, "run_launcher", lambda *_: next(codes))
    with pytest.raises(Interrupted, match="run the same command to resume"):
        run("base.words=5")
    assert not list(codes)


# ------------------------------------------------------------------------------------------- messages


def test_show_prints_plan_and_resolved_settings(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    schedule.show(schedule.plan(pipeline.read_pipeline("configs/pipeline.yaml", ["base.words=8"])))
    out = capsys.readouterr().out
    assert "base: first run" in out
    assert "    words: 8\n" in out
    assert f"    input model: {Path('runs/tiny/base').absolute()}" in out


def test_time_left_is_shown_if_every_stage_was_timed_before(
    project: Path, fake: FakeStages, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run()
    assert " left" not in capsys.readouterr().out
    for name in ("base", "chat", "final"):
        manifest = artifact.read_manifest(Path("runs/tiny", name))
        artifact.write_json(Path("runs/tiny", name, "manifest.json"), {**manifest, "wall_seconds": 60.0})
    run("base.words=4", "chat.style=x", "final.rounds=1")
    assert "; about 2 min 00 s left" in capsys.readouterr().out
