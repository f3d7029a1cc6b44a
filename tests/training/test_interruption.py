"""Signals that make training save and stop."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize(("before", "saved"), [((), "True"), (("nohup",), "False")])
def test_training_saves_at_sighup_unless_it_is_ignored(before: tuple[str, ...], saved: str) -> None:
    code = (
        "import os, signal; from llamita.training.interruption import interruptible\n"
        "with interruptible() as requested: os.kill(os.getpid(), signal.SIGHUP); print(requested())"
    )
    command = [*before, sys.executable, "-c", code]
    found = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, text=True, check=True)
    assert found.stdout == f"{saved}\n"
