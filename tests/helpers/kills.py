"""Runs a stage or a pipeline as a process and kills it at random moments."""

from __future__ import annotations

import random
import shutil
import subprocess
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from llamita.artifact import MARKER, working_folder

from .stage_processes import kill, processor_seconds, start, wait

CLOCKS = ("seconds", "per_second", "peak_memory_gb")


@dataclass(frozen=True)
class Run:
    """A command that writes the folder `out` and logs to `log`; `first` is the first stage of a pipeline."""

    arguments: list[str]
    out: Path
    log: Path
    first: str = ""
    folder: Path | None = None
    """working directory of the command"""

    def start(self) -> subprocess.Popen[bytes]:
        """Starts the command as a new process."""
        return start(self.arguments, self.log, self.folder)

    def has_written(self) -> bool:
        """Returns whether the first stage has written a file."""
        partial = working_folder(self.out / self.first)
        return partial.is_dir() and {path.name for path in partial.iterdir()} > {MARKER}

    def end(self, process: subprocess.Popen[bytes]) -> None:
        """Waits for the process to end; fails if its exit code is not 0."""
        assert process.wait(300) == 0, self.log.read_text()[-4000:]


def run_undisturbed(run: Run) -> tuple[float, float]:
    """Returns the processor seconds before the first file is written (mostly imports), and after it."""
    process = run.start()
    wait(process, run.has_written)
    working = used = processor_seconds(process)

    def update_used() -> bool:
        nonlocal used
        used = max(used, processor_seconds(process))
        return False

    wait(process, update_used, every=0.1)
    run.end(process)
    return working, used - working


def run_with_kills(run: Run, kills: int, *, idle: float, busy: float) -> None:
    """Kills the run at random moments, some of them during the imports, then lets it finish.

    If the run ends before the last kill, it starts again from the beginning with shorter waits.
    """
    draw = random.Random(f"{run.out.name}/{kills}")
    moments = [0.0, *sorted(draw.uniform(0, 0.9) for _ in range(kills))]
    while not all(
        kill_at(draw.uniform(0.9, 1) * idle + (moment - before) * busy, run)
        for before, moment in pairwise(moments)
    ):
        busy *= 0.7
        shutil.rmtree(run.out)
    run.end(run.start())


def kill_at(moment: float, run: Run) -> bool:
    """Starts a run and kills it after `moment` processor seconds; False if it ended before that."""
    process = run.start()
    if not wait(process, lambda: processor_seconds(process) > moment, every=0.05):
        return False
    kill(process)
    return True


def without_clocks(value: Any) -> Any:
    """Returns metrics or settings without the keys that measure time or memory."""
    if isinstance(value, dict):
        return {k: without_clocks(v) for k, v in value.items() if not k.endswith(CLOCKS)}
    return [without_clocks(item) for item in value] if isinstance(value, list) else value
