"""Runs DeepSpeed's launcher on this machine; after a signal its ranks save before they end.

Alone, `deepspeed.launcher.runner` ends at once on a signal, while its ranks are still running, and the
process between them kills the ranks after 30 seconds, which may be in the middle of a large checkpoint.
Therefore launch/deepspeed.sh starts it with `python -m llamita.runner.launched OPTIONS`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress

import psutil

from ..errors import Interrupted
from ..terminal import exit_on_signals

LAUNCHER = (sys.executable, "-m", "deepspeed.launcher.runner")


def run_launcher(command: Sequence[str], environment: Mapping[str, str]) -> int:
    """Runs a launcher in a process group of its own and returns its exit code; all ranks have ended then.

    Ctrl-C and signals whose handlers raise an exception ask the ranks to stop. Ranks that train finish their
    step and save. Another signal kills all of them. Their exit code is then `Interrupted.exit_code`; if they
    end with another one, the exception is raised.
    """
    process = subprocess.Popen(command, env=environment, start_new_session=True)
    try:
        return process.wait()
    except BaseException:
        if _stop(process) == Interrupted.exit_code:
            return Interrupted.exit_code
        raise


def _stop(process: subprocess.Popen[bytes]) -> int:
    """Stops the ranks and waits for the launcher, which ends after them; returns its exit code."""
    try:
        if ranks := _ranks(process.pid):
            for rank in ranks:
                with suppress(psutil.NoSuchProcess):
                    rank.terminate()
        else:  # not started yet
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
        return process.wait()
    except BaseException:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise


def _ranks(launcher: int) -> list[psutil.Process]:
    """The processes of the ranks: the launcher starts one process, which starts them."""
    try:
        return [rank for child in psutil.Process(launcher).children() for rank in child.children()]
    except psutil.NoSuchProcess:
        return []


def main() -> None:
    """DeepSpeed's launcher with the options of the command line."""
    exit_on_signals()
    try:
        sys.exit(run_launcher([*LAUNCHER, *sys.argv[1:]], os.environ))
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
