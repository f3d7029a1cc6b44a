"""The processes that the launcher starts end with it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from llamita.runner import launched

from ..helpers.waiting import wait_until


def test_no_rank_outlives_an_interrupted_launch(tmp_path: Path) -> None:
    rank = "import os, sys, time; open(sys.argv[1], 'w').write(str(os.getpid())); time.sleep(60)"
    parent = (
        "import subprocess, sys, os, signal, time\n"
        f"rank = subprocess.Popen([sys.executable, '-c', {rank!r}, {str(tmp_path / 'pid')!r}])\n"
        f"while not os.path.exists({str(tmp_path / 'pid')!r}): time.sleep(0.01)\n"
        f"time.sleep(0.1); os.kill({os.getpid()}, signal.SIGINT); rank.wait()"
    )
    with pytest.raises(KeyboardInterrupt):
        launched.run_launcher([sys.executable, "-c", parent], os.environ)
    pid = int((tmp_path / "pid").read_text())
    deadline = time.monotonic() + 10  # a signal takes a moment; the rank sleeps 60 s
    while _is_alive(pid):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def _is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().split()[2]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"  # dead and not yet reaped


# As DeepSpeed's launcher: a process that ends at once on a signal, one below it that then kills its ranks and
# ends with the exit code of one, and the ranks, which need a second to save.
RANK = """
import pathlib, signal, sys, time

def save(*_):
    time.sleep(1)
    pathlib.Path(sys.argv[1] + ".saved").touch()
    sys.exit(75)

signal.signal(signal.SIGTERM, save)
pathlib.Path(sys.argv[1]).touch()
time.sleep(60)
"""
MIDDLE = f"""
import signal, subprocess, sys
ranks = [subprocess.Popen([sys.executable, "-c", {RANK!r}, name]) for name in sys.argv[1:]]

def kill(*_):
    for rank in ranks:
        rank.kill()
    sys.exit(1)

signal.signal(signal.SIGTERM, kill)
sys.exit([rank.wait() for rank in ranks][0])
"""
RUNNER = f"""
import subprocess, sys
sys.exit(subprocess.call([sys.executable, "-c", {MIDDLE!r}, *sys.argv[1:]]))
"""


MAIN = f"""
from llamita.runner import launched
launched.LAUNCHER = [{sys.executable!r}, "-c", {RUNNER!r}]
launched.main()
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_ranks_save_before_the_command_ends(tmp_path: Path, number: signal.Signals) -> None:
    marks = [tmp_path / "0", tmp_path / "1"]
    process = subprocess.Popen(
        [sys.executable, "-c", MAIN, *map(str, marks)], stderr=subprocess.PIPE, text=True
    )
    wait_until(lambda: all(mark.exists() for mark in marks))
    process.send_signal(number)
    _, stderr = process.communicate(timeout=20)
    assert process.returncode == 75
    assert "Traceback" not in stderr
    assert sorted(path.name for path in tmp_path.glob("*.saved")) == ["0.saved", "1.saved"]


def test_a_second_interrupt_kills_the_ranks(tmp_path: Path) -> None:
    marks = [tmp_path / "0", tmp_path / "1"]
    process = subprocess.Popen([sys.executable, "-c", MAIN, *map(str, marks)])
    wait_until(lambda: all(mark.exists() for mark in marks))
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 130
    assert not list(tmp_path.glob("*.saved"))
