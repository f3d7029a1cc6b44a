"""Starts stages as processes, waits for them and kills them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil


def command(stage: str, config: Path, out: Path, inputs: dict[str, Path], ranks: int) -> list[str]:
    """Returns the command line that runs a single stage."""
    folders = [*(f"inputs.{name}={folder}" for name, folder in inputs.items()), f"output={out}"]
    start = [sys.executable, "-m", "llamita.cli", stage, str(config), *folders]
    return [*start, "--processes", str(ranks)] if ranks > 1 else start


def kill(process: subprocess.Popen[bytes]) -> None:
    """Kills the process and all its children at once, like a power failure."""
    victims = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    for victim in victims:
        try:
            victim.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(victims, timeout=30)
    process.wait()


def start(arguments: list[str], log: Path, folder: Path | None = None) -> subprocess.Popen[bytes]:
    """Starts a process with one thread, in `folder` if given; its output is appended to `log`."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "WANDB_MODE": "disabled"}
    with log.open("ab") as file:
        return subprocess.Popen(arguments, env=environment, cwd=folder, stdout=file, stderr=file)


def wait(process: subprocess.Popen[bytes], until: Callable[[], bool], every: float = 0.01) -> bool:
    """Waits until the condition holds; False if the process ended before."""
    while not until():
        if process.poll() is not None:
            assert process.returncode == 0
            return False
        time.sleep(every)
    return True


def processor_seconds(process: subprocess.Popen[bytes]) -> float:
    """Processor seconds used so far by the process and its children."""
    seconds = 0.0
    with suppress(psutil.NoSuchProcess):
        own = psutil.Process(process.pid)
        for member in (own, *own.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                used = member.cpu_times()
                seconds += used.user + used.system
    return seconds
