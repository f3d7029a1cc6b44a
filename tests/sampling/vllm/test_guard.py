"""No server outlives its stage, however the stage ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from llamita.sampling.vllm import guard

from ...helpers.waiting import wait_until

# A server with a worker; the server ignores nothing, the worker ignores SIGTERM, as one that computes.
SERVER = """
import os, signal, subprocess, sys, time
code = "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(600)"
worker = subprocess.Popen([sys.executable, "-c", code])
open(sys.argv[1], "w").write(f"{os.getpid()} {worker.pid}")
time.sleep(600)
"""
# A stage that starts the server and is then killed.
STAGE = """
import subprocess, sys, time
guard, code, file = sys.argv[1:]
subprocess.Popen([sys.executable, guard, sys.executable, "-c", code, file], stdin=subprocess.PIPE)
time.sleep(600)
"""


def runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_server_and_workers_end_with_the_stage(number: int, tmp_path: Path) -> None:
    file = tmp_path / "pids"
    stage = subprocess.Popen([sys.executable, "-c", STAGE, guard.__file__, SERVER, str(file)])
    wait_until(lambda: file.exists() and len(file.read_text().split()) == 2)
    server, worker = map(int, file.read_text().split())
    assert runs(server)
    assert runs(worker)
    os.kill(stage.pid, number)
    stage.wait()
    wait_until(lambda: not runs(server) and not runs(worker))


def test_workers_end_with_a_server_that_ends_alone(tmp_path: Path) -> None:
    file = tmp_path / "pids"
    command = [sys.executable, guard.__file__, sys.executable, "-c", SERVER, str(file)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE)
    wait_until(lambda: file.exists() and len(file.read_text().split()) == 2)
    server, worker = map(int, file.read_text().split())
    os.kill(server, signal.SIGKILL)
    process.wait()
    wait_until(lambda: not runs(worker))


def test_the_exit_code_is_that_of_the_server() -> None:
    command = [sys.executable, guard.__file__, sys.executable, "-c", "raise SystemExit(3)"]
    assert subprocess.Popen(command, stdin=subprocess.PIPE).wait() == 3
