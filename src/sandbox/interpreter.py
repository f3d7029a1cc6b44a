"""Starts the launcher in the base interpreter: the one that a virtual environment was made from."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

from ..errors import ConfigError

_FOLDER = Path(__file__).parent
_OPTIONS = ("-P", "-s", "-S", "-X", "utf8")
"""No path of the script or the user, no site-packages, UTF-8."""


def run_main(module: str, *, given: str = "", seconds: float) -> subprocess.CompletedProcess[str]:
    """Runs `main` of a module of `launcher`, without the environment of this process.

    Args:
        given: text for stdin.
        seconds: time after which it is killed.

    Raises:
        subprocess.TimeoutExpired: it was killed.
        ConfigError: this process does not know its interpreter.
    """
    interpreter = getattr(sys, "_base_executable", None) or sys.executable
    if not interpreter:
        raise ConfigError("the sandbox needs a Python interpreter, and sys.executable is empty")
    environment = {
        "PYTHONPATH": str(_FOLDER),
        "PYTHONHASHSEED": "0",  # the order of a set, and so the outcome, is the same in every run
    }
    if path := os.environ.get("LD_LIBRARY_PATH"):  # the interpreter itself may need it
        environment["LD_LIBRARY_PATH"] = path
    return subprocess.run(
        [interpreter, *_OPTIONS, "-c", f"from launcher.{module} import main; main()"],
        input=given,
        capture_output=True,
        text=True,
        encoding="utf-8",
        env=environment,
        cwd="/",
        start_new_session=True,  # Ctrl-C reaches only the main process, which then kills this one
        timeout=seconds,
        check=False,
    )


@cache
def needed_files() -> tuple[str, ...]:
    """Returns the folders of the standard library and the C libraries that it and the interpreter need.

    Raises:
        ConfigError: the interpreter does not run.
    """
    listed = run_main("libraries", seconds=120)
    if listed.returncode:
        raise ConfigError(f"the sandbox cannot list the files of Python: {listed.stderr.strip()[-500:]}")
    return tuple(json.loads(listed.stdout))
