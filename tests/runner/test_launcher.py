"""The processes that the launcher starts end with it."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from llamita.runner import launcher


def test_no_rank_outlives_an_interrupted_launch(tmp_path: Path) -> None:
    rank = "import os, sys, time; open(sys.argv[1], 'w').write(str(os.getpid())); time.sleep(60)"
    parent = (
        "import subprocess, sys, os, signal, time\n"
        f"rank = subprocess.Popen([sys.executable, '-c', {rank!r}, {str(tmp_path / 'pid')!r}])\n"
        f"while not os.path.exists({str(tmp_path / 'pid')!r}): time.sleep(0.01)\n"
        f"time.sleep(0.1); os.kill({os.getpid()}, signal.SIGINT); rank.wait()"
    )
    with pytest.raises(KeyboardInterrupt):
        launcher._run_group([sys.executable, "-c", parent], os.environ)
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
