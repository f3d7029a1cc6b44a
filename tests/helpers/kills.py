"""A stage or a pipeline as a process that is killed at random moments, and what it makes but for clocks."""

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
    """A command that makes `out` and writes to `log`; a pipeline begins with stage `first` below `out`."""

    arguments: list[str]
    out: Path
    log: Path
    first: str = ""
    folder: Path | None = None
    """where the command is started"""

    def start(self) -> subprocess.Popen[bytes]:
        """The command as a new process."""
        return start(self.arguments, self.log, self.folder)

    def works(self) -> bool:
        """Whether the first stage has written anything."""
        partial = working_folder(self.out / self.first)
        return partial.is_dir() and {path.name for path in partial.iterdir()} > {MARKER}

    def end(self, process: subprocess.Popen[bytes]) -> None:
        """Waits until the process has ended well."""
        assert process.wait(300) == 0, self.log.read_text()[-4000:]


def run_undisturbed(run: Run) -> tuple[float, float]:
    """Processor seconds from the start to the first file (mostly imports), and from there to the end."""
    process = run.start()
    wait(process, run.works)
    working = used = processor_seconds(process)

    def goes_on() -> bool:
        nonlocal used
        used = max(used, processor_seconds(process))
        return False

    wait(process, goes_on, every=0.1)
    run.end(process)
    return working, used - working


def run_with_kills(run: Run, kills: int, *, idle: float, busy: float) -> None:
    """Kills at random moments of the work, some of them still in the imports, then lets it end.

    A run that ends before its last kill begins anew with shorter waits.
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
    """Starts a run and kills it after so many processor seconds; False if it has ended before."""
    process = run.start()
    if not wait(process, lambda: processor_seconds(process) > moment, every=0.05):
        return False
    kill(process)
    return True


def without_clocks(value: Any) -> Any:
    """Metrics or settings without the keys that time or memory decide."""
    if isinstance(value, dict):
        return {k: without_clocks(v) for k, v in value.items() if not k.endswith(CLOCKS)}
    return [without_clocks(item) for item in value] if isinstance(value, list) else value
