"""Real processes with a closed, full or differently encoded terminal or pipe: none of these ends a run."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from llamita import artifact

from .helpers.waiting import wait_until

STAGE = """
import os, sys, time, types
from llamita import cli
from llamita.runner import execution, stages
from llamita.settings import StageSettings
from llamita.console import error_console, say, track

def run(settings, inputs, out):
    for number in track(range(3000), "work"):
        say(f"{number} \\u2264 \\U0001f999")
        error_console.print("still at work", soft_wrap=True)
        print("by a library", file=sys.stderr)
        print("by a library", flush=True)
    (out / "begun").touch()
    time.sleep(float(os.environ.get("SLEEP", "0")))
    return {}

settings, stage = types.ModuleType("fake.settings"), types.ModuleType("fake.stage")
settings.WorldSettings, stage.run = StageSettings, run
sys.modules |= {"fake": types.ModuleType("fake"), "fake.settings": settings, "fake.stage": stage}
stages.REGISTRY["world"] = ("fake", "WorldSettings")
execution._seed_global_generators = lambda seed: None  # imports torch
cli.main()
"""


def start(folder: Path, before: tuple[str, ...] = (), **options: Any) -> subprocess.Popen[bytes]:
    (folder / "world.yaml").write_text("seed: 1\n")
    command = [*before, sys.executable, "-c", STAGE, "world", "world.yaml", "output=out"]
    environment = os.environ | options.pop("environment", {})
    return subprocess.Popen(command, cwd=folder, env=environment, **options)


def assert_published(folder: Path, process: subprocess.Popen[bytes]) -> None:
    assert process.wait(30) == 0
    assert artifact.read_manifest(folder / "out")["stage"] == "world"


@pytest.mark.parametrize("both", [False, True])
def test_the_reader_of_the_output_is_gone(tmp_path: Path, both: bool) -> None:
    """As in `llamita sft … | head -c 1`, and with `2>&1` before the pipe."""
    error = subprocess.STDOUT if both else subprocess.PIPE
    process = start(tmp_path, stdout=subprocess.PIPE, stderr=error)
    assert process.stdout is not None
    assert len(process.stdout.read(1)) == 1
    process.stdout.close()
    if process.stderr is not None:
        assert b"still at work\nby a library" in process.stderr.read()
        process.stderr.close()
    assert_published(tmp_path, process)


def test_a_full_disk_behind_the_log(tmp_path: Path) -> None:
    with Path("/dev/full").open("wb") as full:
        assert_published(tmp_path, start(tmp_path, stdout=full, stderr=full))


def test_streams_that_are_closed_from_the_start(tmp_path: Path) -> None:
    """Otherwise the first files that the stage opens are its standard streams."""
    assert_published(tmp_path, start(tmp_path, ("sh", "-c", 'exec "$@" >&- 2>&-', "sh")))


def test_characters_that_the_terminal_lacks(tmp_path: Path) -> None:
    environment = {"PYTHONIOENCODING": "ascii:strict"}
    process = start(tmp_path, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, environment=environment)
    output, _ = process.communicate(timeout=30)
    assert b"2999 \\u2264 \\U0001f999\n" in output
    assert_published(tmp_path, process)


def sleeping(folder: Path, before: tuple[str, ...] = ()) -> subprocess.Popen[bytes]:
    nowhere = subprocess.DEVNULL
    quiet = {"stdin": nowhere, "stdout": nowhere, "stderr": nowhere}
    process = start(folder, before, environment={"SLEEP": "60"}, **quiet)
    wait_until((folder / "out.partial" / "begun").exists)
    return process


def test_nohup_outlives_its_terminal(tmp_path: Path) -> None:
    assert shutil.which("nohup")
    process = sleeping(tmp_path, ("nohup",))
    process.send_signal(signal.SIGHUP)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.5)
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 75


def test_a_closed_terminal_ends_a_run_as_sigterm_does(tmp_path: Path) -> None:
    process = sleeping(tmp_path)
    for _ in range(2):  # the kernel's and the shell's
        process.send_signal(signal.SIGHUP)
    assert process.wait(20) == 75
