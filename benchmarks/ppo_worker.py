"""What both sides of `ppo.py` share: cases, and a process that runs one iteration for each line it reads.

Imports only the standard library, since the two sides run in environments with different packages.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RESULT = "RESULT "
BOS, EOS, PAD = 1, 2, 0
MATERIAL, PROMPTS = ("policy", "critic", "reward"), "prompts.json"  # in the folder of a case


@dataclass(frozen=True)
class Case:
    """A model and the episodes of one iteration.

    Attributes:
        prompt: shortest and longest prompt in tokens; lengths between them are equally likely.
        new_tokens: maximum length of an answer.
        mean_answer: mean length without that maximum, geometrically distributed; None: no answer ever ends,
            so that each has exactly `new_tokens` tokens.
        micro_batch: rows of a forward pass with gradient on TRL's side; an iteration has one optimizer step.
        micro_tokens: tokens of such a pass on our side, which splits by tokens; pads included.
    """

    width: int
    intermediate: int
    layers: int
    heads: int
    vocabulary: int
    prompt: tuple[int, int]
    new_tokens: int
    mean_answer: int | None
    episodes: int
    micro_batch: int
    micro_tokens: int


_SMALL = {"width": 256, "intermediate": 688, "layers": 6, "heads": 4, "vocabulary": 2048}
_LARGE = {"width": 512, "intermediate": 1376, "layers": 8, "heads": 8, "vocabulary": 4096}
_EQUAL: dict[str, Any] = {"prompt": (32, 32), "new_tokens": 64, "mean_answer": None}
_SPREAD: dict[str, Any] = {"prompt": (8, 56), "new_tokens": 128, "mean_answer": 32}
_TINY: dict[str, Any] = {"prompt": (3, 6), "new_tokens": 8, "mean_answer": 4}
CASES = {
    "5.8M, equal lengths": Case(**_SMALL, **_EQUAL, episodes=32, micro_batch=8, micro_tokens=768),
    "5.8M, spread lengths": Case(**_SMALL, **_SPREAD, episodes=32, micro_batch=8, micro_tokens=512),
    "30M, equal lengths": Case(**_LARGE, **_EQUAL, episodes=8, micro_batch=4, micro_tokens=384),
    "30M, spread lengths": Case(**_LARGE, **_SPREAD, episodes=8, micro_batch=4, micro_tokens=384),
    "tiny": Case(16, 32, 2, 2, 64, **_TINY, episodes=8, micro_batch=4, micro_tokens=56),
}
"""Those that are measured, and one that tests the script."""


class Phases:
    """Processor seconds since the iteration began, by phase; a phase ends where the next one begins."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._name, self._since = "sampling", time.process_time()

    def begin(self, name: str) -> None:
        now = time.process_time()
        self.seconds[self._name] = self.seconds.get(self._name, 0.0) + now - self._since
        self._name, self._since = name, now


class Reporter:
    """Reports to `ppo.py`: what the process has loaded, then each iteration that it asked for."""

    def __init__(self) -> None:
        self._imports = _peak_memory()

    def ready(self, **facts: Any) -> None:
        """Reports that the models are loaded. Facts: `agreement`, numbers that both sides have in common."""
        _print(facts | {"imports_gb": self._imports})

    def requests(self) -> Iterator[None]:
        """Yields whenever the next iteration is to begin, until standard input ends."""
        for _ in sys.stdin:
            self._started = time.perf_counter(), time.process_time()
            yield

    def finished(self, *, tokens: int, phases: dict[str, float]) -> None:
        """Reports the iteration: seconds, answer tokens, and GB of peak memory beyond that of the imports.

        Processor seconds are those of this process alone, so other work on the machine changes them less.
        """
        started, processor_started = self._started
        _print(
            {
                "seconds": time.perf_counter() - started,
                "processor_seconds": time.process_time() - processor_started,
                "tokens": tokens,
                "phases": phases,
                "memory_gb": _peak_memory() - self._imports,
            }
        )


def _print(facts: dict[str, Any]) -> None:
    print("\n" + RESULT + json.dumps(facts), flush=True)


def _peak_memory() -> float:
    """Largest resident memory of this process so far, in GB of 10^9 bytes.

    Linux counts the memory of the process that started this one in `ru_maxrss`, but not in `VmHWM`.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        lines = dict(line.split(":", 1) for line in status.read_text(encoding="utf-8").splitlines())
        return int(lines["VmHWM"].split()[0]) * 1024 / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e9  # macOS: bytes


def arguments() -> tuple[Case, Path]:
    """The case and its folder, from the command line."""
    name, folder = sys.argv[1:]
    return CASES[name], Path(folder)


def read_prompts(folder: Path) -> list[list[int]]:
    prompts: list[list[int]] = json.loads((folder / PROMPTS).read_text(encoding="utf-8"))
    return prompts
