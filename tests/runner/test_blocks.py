"""Pipelines with blocks of rounds, from the YAML to the artifacts; with stages that write text."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from llamita import artifact, hashes
from llamita.config import load_settings
from llamita.errors import ConfigError, LlamitaError
from llamita.runner import execution, launcher, pipeline, schedule, stages
from llamita.settings import listed

from ..helpers.blocks import NAMES, settings, stage_runs
from ..helpers.text_pipeline import problem, replace
from ..helpers.text_stages import FakeStages

pytestmark = pytest.mark.usefixtures("blocks")


def plan(*overrides: str, first: str | None = None, last: str | None = None) -> dict[str, str]:
    chosen = schedule.plan(pipeline.read_pipeline("configs/pipeline.yaml", overrides), first, last)
    return {item.stage_run.name: item.status.reason for item in chosen if item.status}


def run(*overrides: str, first: str | None = None, last: str | None = None) -> None:
    schedule.run(schedule.plan(pipeline.read_pipeline("configs/pipeline.yaml", overrides), first, last))


def tree(folder: Path) -> dict[str, str]:
    """What every file below a folder holds, but for clocks."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "begun.log")
    texts = {path.relative_to(folder).as_posix(): path.read_text() for path in files}
    manifests = {name: artifact.read_manifest((folder / name).parent) for name in texts if "manifest" in name}
    clocks = ("wall_seconds", "created")
    # the contents of inputs are compared by the files themselves: a log of starts counts among them
    for manifest in manifests.values():
        for key in (*clocks, "hash", "fingerprint", "inputs"):
            del manifest[key]
    return {name: str(manifests.get(name, text)) for name, text in texts.items()}


# ------------------------------------------------------------------------------------------- stages


def test_every_stage_of_a_round_has_a_folder_and_inputs_of_its_own() -> None:
    found = stage_runs()
    assert list(found) == NAMES
    stage_run = found["v3/rejection"]
    run_folder = Path("runs/tiny").absolute()
    assert stage_run.final == run_folder / "v3/rejection"
    assert stage_run.inputs == {
        "model": run_folder / "v2/ppo",
        "judge": run_folder / "v3/judge",
        "earlier.v1/rejection": run_folder / "v1/rejection",
        "earlier.v2/rejection": run_folder / "v2/rejection",
    }
    assert stage_run.upstream["earlier.v2/rejection"] == "v2/rejection"
    assert list(listed(stage_run.inputs, "earlier")) == ["v1/rejection", "v2/rejection"]
    assert list(listed(found["evaluate"].inputs, "earlier")) == [
        *("v1/rejection", "v2/rejection", "v2/ppo", "v3/rejection", "v3/ppo")
    ]
    assert listed(found["v1/rejection"].inputs, "earlier") == {}


def test_the_round_is_the_default_of_the_setting_round() -> None:
    found = stage_runs("v3/rejection.round=other")
    assert [settings(found[f"v{n}/rejection"]).round for n in (1, 2, 3)] == ["v1", "v2", "other"]
    assert settings(found["sft"]).round == "alone"
    assert not hasattr(found["v1/judge"].settings, "round")


def test_a_report_without_inputs_takes_all_earlier_stages() -> None:
    report = stage_runs()["report"]
    assert list(report.inputs) == NAMES[:-1]
    assert report.inputs["v2/ppo"] == Path("runs/tiny/v2/ppo").absolute()
    replace("configs/pipeline.yaml", "stage: gather}", "stage: gather, inputs: {only_this: sft}}")
    assert list(stage_runs()["report"].inputs) == ["only_this"]


def test_overrides_of_every_round_and_of_one() -> None:
    Path("configs/zero.json").write_text('{"stage": 2}')
    ranks = ("ppo.deepspeed=configs/zero.json", "ppo.processes=2", "v3/ppo.processes=3")
    found = stage_runs("rejection.strength=5", "v2/rejection.strength=6", *ranks)
    assert [settings(found[f"v{n}/rejection"]).strength for n in (1, 2, 3)] == [5, 6, 5]
    assert [found[f"v{n}/ppo"].processes for n in (2, 3)] == [2, 3]
    found = stage_runs("v2/rejection.inputs.model=sft", "rejection.inputs.earlier=[v1/judge]")
    run_folder = Path("runs/tiny").absolute()
    assert [found[f"v{n}/rejection"].inputs["model"] for n in (1, 2, 3)] == [
        *(run_folder / "sft", run_folder / "sft", run_folder / "v2/ppo")
    ]
    assert list(listed(found["v3/rejection"].inputs, "earlier")) == ["v1/judge"]


def test_a_list_of_roots_paths_and_models_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "fetch", lambda name: tmp_path / "cached")
    for name in ("given", "old/best", "older/best"):
        (tmp_path / name).mkdir(parents=True)
    replace("configs/pipeline.yaml", "earlier: all}", "earlier: [sft, data, ../old/best, org/name]}")
    found = stage_runs(f"roots.data={tmp_path / 'given'}")
    assert listed(found["evaluate"].inputs, "earlier") == {
        "sft": Path("runs/tiny/sft").absolute(),
        "data": tmp_path / "given",
        "best": tmp_path / "old/best",
        "org/name": tmp_path / "cached",
    }
    replace("configs/pipeline.yaml", "data, ../old/best", "../older/best, ../old/best")
    assert "stages.3.inputs.earlier.2: 'best' is in the list twice; rename one" in problem()


# ------------------------------------------------------------------------------------------- running


def test_all_rounds_run_in_order_into_nested_folders(
    fake: FakeStages, capsys: pytest.CaptureFixture[str]
) -> None:
    assert plan()["v2/judge"] == "first run, after v1/rejection"
    run()
    assert fake.ran == NAMES
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "[1/12] base: running (first run)"
    assert any(line.startswith("[7/12] v2/ppo: finished in ") for line in lines)
    assert lines[-1] == f"finished; output folder: {Path('runs/tiny').absolute()}"
    manifest = artifact.read_manifest(Path("runs/tiny/v2/rejection"))
    assert manifest["name"] == "v2/rejection"
    assert manifest["settings"] == {"seed": 0, "round": "v2", "strength": 2, "deepspeed": None}
    earlier = Path("runs/tiny/v1/rejection").absolute()
    assert manifest["inputs"]["earlier.v1/rejection"] == {
        "path": str(earlier),
        "hash": hashes.content_hash(earlier),
    }
    assert set(plan().values()) == {"finished"}
    run(last="v1/rejection")
    assert (
        capsys.readouterr().out.splitlines()[-1] == f"finished; output folder: {Path('runs/tiny').absolute()}"
    )


def test_names_of_nested_folders(fake: FakeStages) -> None:
    run(last="v2/ppo")
    names = [artifact.stage_name(Path("runs/tiny", name)) for name in ("sft", "v1/judge", "v2/ppo")]
    assert names == ["sft", "v1/judge", "v2/ppo"]
    assert {artifact.run_name(Path("runs/tiny", name)) for name in names} == {"tiny"}
    shutil.copytree("runs/tiny/v1/judge", "runs/other/copied")
    assert artifact.stage_name(Path("runs/other/copied")) == "copied"
    assert artifact.run_name(Path("runs/other/copied")) == "other"
    unfinished: dict[str, tuple[str, str]] = {}

    def record_names(out: Path) -> None:
        unfinished[out.name] = artifact.stage_name(out), artifact.run_name(out)

    fake.during["v2/ppo"] = record_names
    run("v2/ppo.strength=4", last="v2/ppo")
    assert unfinished == {"ppo.partial": ("v2/ppo", "tiny")}


def test_a_change_in_one_round_reruns_it_and_the_later_ones(fake: FakeStages) -> None:
    run()
    fake.ran.clear()
    assert plan("v2/rejection.strength=4")["v2/rejection"] == "changed: strength: 2 -> 4"
    run("v2/rejection.strength=4")
    assert fake.ran == NAMES[5:]


def test_the_order_of_a_list_counts(fake: FakeStages) -> None:
    replace("configs/pipeline.yaml", "earlier: all}", "earlier: [v1/rejection, v2/ppo]}")
    run()
    replace("configs/pipeline.yaml", "[v1/rejection, v2/ppo]", "[v2/ppo, v1/rejection]")
    changed = 'order of input earlier: ["v1/rejection", "v2/ppo"] -> ["v2/ppo", "v1/rejection"]'
    assert plan()["evaluate"] == f"changed: {changed}"
    assert plan("sft.strength=9")["evaluate"].startswith(f"changed: {changed}; runs after ")
    fake.ran.clear()
    run()
    assert fake.ran == ["evaluate", "report"]
    replace(
        "configs/pipeline.yaml",
        "model: sft, earlier: [v2/ppo, v1/rejection]",
        "earlier: [v2/ppo, v1/rejection], model: sft",
    )
    assert plan()["evaluate"] == "finished"  # the order of the inputs themselves does not count


def test_another_round_runs_only_new_stages_and_those_that_take_them(fake: FakeStages) -> None:
    run()
    fake.ran.clear()
    replace("configs/pipeline.yaml", "rounds: [v1, v2, v3]", "rounds: [v1, v2, v3, v4]")
    replace("configs/pipeline.yaml", "only: [v2, v3]", "only: [v2, v3, v4]")
    run()
    assert fake.ran == ["v4/judge", "v4/rejection", "v4/ppo", "evaluate", "report"]


def test_from_and_until_a_stage_of_a_round(fake: FakeStages) -> None:
    run(last="v1/rejection")
    assert fake.ran == NAMES[:4]
    with pytest.raises(LlamitaError, match=r"stage 'v2/ppo' needs .*v2/rejection, .*from 'v2/rejection'"):
        run(first="v2/ppo")
    run(last="v2/ppo")
    replace("configs/rejection.yaml", "2", "4")
    fake.ran.clear()
    run(first="v2/ppo", last="v3/judge")  # uses v2/rejection without checking it
    assert fake.ran == ["v3/judge"]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (
            "rejection",
            "this stage exists in several rounds; expected one of v1/rejection, v2/rejection, v3/rejection",
        ),
        ("v1/ppo", "no stage 'ppo' in round 'v1'; expected one of v2/ppo, v3/ppo"),
        ("v2/pop", "no such stage; did you mean 'v2/ppo'?; expected one of base, sft, v1/judge"),
    ],
)
def test_from_and_until_list_the_allowed_names(name: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        plan(first=name)
    assert str(caught.value).startswith(f"--from {name}: {words}")
    with pytest.raises(ConfigError) as caught:
        plan(last=name)
    assert str(caught.value).startswith(f"--until {name}: {words}")


@pytest.mark.parametrize(
    ("name", "reason"),
    [("v2/judge", "unfinished, restarts (this stage cannot resume)"), ("v2/ppo", "unfinished, resumes")],
)
def test_a_run_that_was_stopped_in_a_round_resumes_there(fake: FakeStages, name: str, reason: str) -> None:
    def stop(out: Path) -> None:
        raise KeyboardInterrupt

    fake.during[name] = stop
    with pytest.raises(KeyboardInterrupt):
        run(last="v2/ppo")
    assert plan()[name] == reason
    fake.during.clear()
    run(last="v2/ppo")
    again = NAMES.index(name)
    assert fake.ran == [*NAMES[: again + 1], *NAMES[again:7]]
    begun = Path("runs/tiny", name, "begun.log").read_text()
    assert begun == ("begun\nbegun\n" if "resumes" in reason else "begun\n")


def test_a_run_that_is_killed_at_random_moments_ends_like_an_undisturbed_one(fake: FakeStages) -> None:
    fake.during = {name: lambda out: time.sleep(0.02) for name in NAMES}
    run("name=undisturbed")
    draws = random.Random(1)
    for _ in range(5):
        if not (child := os.fork()):
            run()
            os._exit(0)
        time.sleep(draws.uniform(0.05, 0.2))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    run()
    assert tree(Path("runs/tiny")) == tree(Path("runs/undisturbed"))
    assert set(plan().values()) == {"finished"}


# ------------------------------------------------------------------------------------------- launching


def test_each_stage_of_a_round_has_a_launcher_of_its_own(
    fake: FakeStages, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("configs/zero.json").write_text('{"stage": 2}')
    started: list[tuple[str, str, dict[str, Any]]] = []

    def run_group(arguments: Sequence[str], environment: dict[str, str]) -> int:
        processes = arguments[arguments.index("--num_accelerators") + 1]
        kind, resolved, _, name = arguments[arguments.index("llamita.cli") + 1 :]
        monkeypatch.setenv("RANK", "0")  # what rank 0 does with the settings that it is given
        read = load_settings(resolved, stages.settings_class(kind))
        started.append((name, processes, read.folders()))
        execution.execute(stages.standalone_run(kind, read, Path(resolved), name=name))
        monkeypatch.delenv("RANK")
        return 0

    monkeypatch.setattr(launcher, "_gpus_visible", lambda: False)
    monkeypatch.setattr(launcher, "run_launcher", run_group)
    changed = (
        "v3/rejection.deepspeed=configs/zero.json",
        "ppo.deepspeed=configs/zero.json",
        "v3/ppo.processes=2",
    )
    run(*changed)
    assert [(name, processes) for name, processes, _ in started] == [
        *(("v2/ppo", "1"), ("v3/rejection", "1"), ("v3/ppo", "2"))
    ]
    assert list(started[1][2]) == ["model", "judge", "earlier.v1/rejection", "earlier.v2/rejection"]
    assert artifact.read_manifest(Path("runs/tiny/v3/rejection"))["name"] == "v3/rejection"
    assert set(plan(*changed).values()) == {"finished"}  # rank 0 came to the same fingerprints
    assert not list(Path("runs/tiny").rglob("*.settings.json"))
