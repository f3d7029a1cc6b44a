"""Metrics reach metrics.jsonl and wandb, and wandb never stops a stage or writes to its terminal."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from llamita.artifact import MARKER, RESUME
from llamita.training import tracking
from llamita.training.tracking import Tracker


def rows(out: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture
def out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("WANDB_API_KEY", "WANDB_MODE", "RANK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    return tmp_path / "smoke" / "sft.partial"


def test_offline_without_a_key_grouped_by_run_below_the_run(out: Path):
    import wandb

    with Tracker(out, {"seed": 1, "trainer": {"learning_rate": 0.1}}) as tracker:
        run = wandb.run
        assert run is not None
        assert (run.group, run.name, run.settings.mode) == ("smoke", "sft", "offline")
        assert dict(run.config)["trainer"] == {"learning_rate": 0.1}
        tracker.log({"train/loss": 2.0}, 1)
        tracker.log({"train/loss": float("nan")}, 2)
    assert wandb.run is None
    assert rows(out) == [{"step": 1, "train/loss": 2.0}, {"step": 2, "train/loss": None}]
    assert list(out.parent.glob("wandb/offline-run-*/*.wandb"))
    assert not list(out.glob("wandb*"))  # never inside the artifact
    tracker.log({"train/loss": 1.0}, 3)  # after the end: nothing happens
    assert len(rows(out)) == 2


def test_a_resumed_stage_stays_one_run(out: Path) -> None:
    import wandb

    ids = []
    for _ in range(2):
        with Tracker(out, {}):
            ids.append(wandb.run.id)
    shutil.rmtree(out / RESUME)  # the stage starts from the beginning
    with Tracker(out, {}):
        ids.append(wandb.run.id)
    first, resumed, restarted = ids
    assert first == resumed != restarted


def test_offline_the_terminal_has_our_line_alone(out: Path) -> None:
    script = f"""
from pathlib import Path
from llamita.training.tracking import Tracker
with Tracker(Path({str(out)!r}), {{}}) as tracker:
    tracker.log({{"train/loss": 1.0}}, 1)
    import wandb
    assert wandb.run.url is None  # wandb warns of this
    wandb.termlog("a message of wandb")
"""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    command = [sys.executable, "-c", script]
    done = subprocess.run(
        command, cwd=out.parents[1], env=environment, capture_output=True, text=True, check=True
    )
    (run,) = out.parent.glob("wandb/offline-run-*")
    line = f"wandb: offline run in {run.relative_to(out.parents[1])} (upload it with `wandb sync`)\n"
    assert (done.stdout, done.stderr) == (line, "")


class FakeRun:
    """Takes what is logged; wandb would draw it over its own count of calls."""

    sync_dir = "."

    def __init__(self) -> None:
        self.axes: dict[str, str] = {}

    def define_metric(self, name: str, step_metric: str) -> None:
        self.axes[name] = step_metric


def test_step_is_the_x_axis_of_every_chart(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import wandb

    run = FakeRun()
    monkeypatch.setattr(wandb, "init", lambda **_: run)
    Tracker(out, {})
    assert run.axes == {"*": "step"}


def test_a_stage_of_a_round_is_a_run_of_the_same_group_in_the_same_folder(out: Path) -> None:
    import wandb

    ppo = out.with_name("v1") / "ppo.partial"
    ppo.mkdir(parents=True)
    (ppo / MARKER).write_text(json.dumps({"name": "v1/ppo"}))
    with Tracker(ppo, {}):
        assert (wandb.run.group, wandb.run.name) == ("smoke", "v1/ppo")
    assert list(out.parent.glob("wandb/offline-run-*/*.wandb"))
    assert [path.name for path in ppo.parent.iterdir()] == ["ppo.partial"]


def test_a_key_or_wandb_mode_decides_the_mode(out: Path, monkeypatch: pytest.MonkeyPatch):
    import wandb

    modes: list[str] = []

    def init(**options: Any) -> FakeRun:
        modes.append(options["mode"])
        return FakeRun()

    monkeypatch.setattr(wandb, "init", init)
    Tracker(out, {})
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    Tracker(out, {})
    monkeypatch.delenv("WANDB_API_KEY")
    (out.parent.parent / "netrc").write_text("machine api.wandb.ai login user password " + "k" * 40)
    Tracker(out, {})
    monkeypatch.setenv("WANDB_MODE", "offline")
    Tracker(out, {})
    monkeypatch.setenv("WANDB_MODE", "disabled")
    Tracker(out, {})
    assert modes == ["offline", "online", "online", "offline"]


@pytest.mark.parametrize("fails", ["init", "log"])
def test_a_failure_of_wandb_is_reported_once_and_logging_continues(
    out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], fails: str
):
    import wandb

    class Broken(FakeRun):
        def log(self, _: object) -> None:
            raise OSError("no space left")

    def init(**_: object) -> Broken:
        if fails == "init":
            raise RuntimeError("no service")
        return Broken()

    monkeypatch.setattr(wandb, "init", init)
    with Tracker(out, {}) as tracker:
        tracker.log({"train/loss": 1.0}, 1)
        tracker.log({"train/loss": 0.5}, 2)
    assert [row["train/loss"] for row in rows(out)] == [1.0, 0.5]
    assert capsys.readouterr().out.count("wandb: turned off") == 1


@pytest.mark.parametrize("mode", ["disabled", "offline"])
def test_wandb_need_not_be_installed(
    out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], mode: str
):
    monkeypatch.setenv("WANDB_MODE", mode)
    monkeypatch.setitem(sys.modules, "wandb", None)  # importing it raises ModuleNotFoundError
    with Tracker(out, {}) as tracker:
        tracker.log({"train/loss": 1.0}, 1)
    assert rows(out) == [{"step": 1, "train/loss": 1.0}]
    assert capsys.readouterr().out.count("wandb: turned off") == (mode != "disabled")


def test_other_ranks_write_nothing(out: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RANK", "1")
    with Tracker(out, {}) as tracker:
        tracker.log({"train/loss": 1.0}, 1)
    assert not out.exists()


def test_a_log_call_costs_little(out: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    with Tracker(out, {}) as tracker:
        started = time.process_time()
        for step in range(1000):
            tracker.log({"train/loss": 1.0, "train/learning_rate": 0.1}, step)
    assert time.process_time() - started < 1
    assert tracking.PROJECT == "llamita"


def test_rewinding_removes_later_rows_and_a_torn_line(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    with Tracker(out, {}) as tracker:
        for step in (1, 2, 3):
            tracker.log({"train/loss": 1.0}, step)
    with (out / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "los')  # killed while writing
    with Tracker(out, {}) as tracker:
        tracker.rewind(2)
        tracker.log({"train/loss": 0.5}, 3)
    assert [(row["step"], row["train/loss"]) for row in rows(out)] == [(1, 1.0), (2, 1.0), (3, 0.5)]
