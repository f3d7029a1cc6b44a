"""Speed and memory of an iteration of PPO, compared with TRL 0.24's `PPOTrainer`, in episodes per second.

    python benchmarks/ppo.py [ROUNDS] [CASE ...]

TRL removed its PPO from later releases, so it runs in an environment of its own, `benchmarks/.venv-trl`. The
script creates it from `ppo_trl_requirements.txt` when it is missing or the file has changed, which needs the
network or pip's settings for a package index (on Linux, PyPI's torch has several GB of GPU libraries;
PIP_INDEX_URL or PIP_EXTRA_INDEX_URL can name an index with the CPU's).

Both sides load the same weights (policy, reference, critic, one reward model) and the same prompts. They
compute in fp32 on the CPU with OMP_NUM_THREADS threads (default: 1), sample at temperature 1 in one batch,
and take one optimizer step per iteration. TRL's micro-batches have a number of rows and ours a number of
tokens, at most as many as TRL's have with its longest answers. With "equal lengths" neither side ever samples
EOS, so all answers have the maximum length. With "spread lengths" EOS has about the same probability at every
token and the longest answers are truncated; the sides draw different answers.

Each side of a case is a process of its own; the two take turns for ROUNDS rounds (default: 5) after a warm-up
iteration each. Rates are medians, ratios the median and range over the rounds; memory is the largest resident
memory of the process minus that after its imports. Other work on the machine changes the ratio of processor
time less. Ctrl-C stops; the tables then have the completed rounds.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from machine import describe, table
from ppo_worker import CASES, RESULT

HERE = Path(__file__).resolve().parent
REQUIREMENTS = HERE / "ppo_trl_requirements.txt"
ENVIRONMENT = HERE / ".venv-trl"
SIDES = ("TRL", "ours")
PHASES = ("sampling", "scoring", "advantages", "update")

Iterations = list[dict[str, Any]]


def trl_python(environment: Path = ENVIRONMENT, requirements: Path = REQUIREMENTS) -> Path:
    """The Python of TRL's environment, which is created if it is missing or out of date.

    Exits with pip's last lines if the packages cannot be installed.
    """
    python, installed = environment / "bin" / "python", environment / "installed.txt"
    wanted = requirements.read_text(encoding="utf-8")
    if installed.is_file() and installed.read_text(encoding="utf-8") == wanted:
        return python
    print(f"creating {environment}", file=sys.stderr)
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(environment)], check=True)
    command = [str(python), "-m", "pip", "install", "-r", str(requirements)]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    if process.returncode:
        packages = ", ".join(line for line in wanted.splitlines() if not line.startswith("#"))
        last = "\n".join(process.stderr.splitlines()[-3:])
        sys.exit(
            f"TRL's side needs {packages} in {environment}, and pip could not install them; run again with "
            f"network access, or set PIP_INDEX_URL or PIP_FIND_LINKS to where they are. pip said:\n{last}"
        )
    installed.write_text(wanted, encoding="utf-8")
    return python


class Worker:
    """One side of a case, in a process of its own that waits until an iteration is asked for."""

    def __init__(self, command: Sequence[str], log: Path) -> None:
        self._command, self._log = command, log
        with log.open("w", encoding="utf-8") as errors:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=environment(),
            )
        self.facts = self._read()

    def iterate(self) -> dict[str, Any]:
        """Runs one iteration; returns what `Reporter.finished` reports."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return self._read()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith(RESULT):
                facts: dict[str, Any] = json.loads(line.removeprefix(RESULT))
                return facts
        code = self._process.wait()
        last = "\n".join(self._log.read_text(encoding="utf-8", errors="replace").splitlines()[-20:])
        sys.exit(f"{' '.join(self._command)}: exit code {code}\n{last}")

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


def environment() -> dict[str, str]:
    fixed = {"HF_HUB_OFFLINE": "1", "TRL_EXPERIMENTAL_SILENCE": "1", "CUDA_VISIBLE_DEVICES": ""}
    return {"OMP_NUM_THREADS": "1"} | os.environ | fixed


def measure(name: str, pythons: Mapping[str, str], rounds: int) -> dict[str, Iterations]:
    """The iterations of both sides, one per round; `pythons`: the interpreter of each side."""
    scripts = {"TRL": HERE / "ppo_trl.py", "ours": HERE / "ppo_ours.py"}
    found: dict[str, Iterations] = {side: [] for side in SIDES}
    workers: dict[str, Worker] = {}
    with tempfile.TemporaryDirectory() as folder:
        write = [pythons["ours"], str(scripts["ours"]), "--material", name, folder]
        subprocess.run(write, env=environment(), check=True, capture_output=True)
        try:
            for side in SIDES:
                command = [pythons[side], str(scripts[side]), name, folder]
                workers[side] = Worker(command, Path(folder) / f"{side}.log")
            check_agreement(*(workers[side].facts["agreement"] for side in SIDES))
            for side in SIDES:
                workers[side].iterate()  # warm-up
            for number in range(1, rounds + 1):
                iterations = {side: workers[side].iterate() for side in SIDES}
                for side, iteration in iterations.items():
                    found[side].append(iteration)
                    seconds = (
                        f"{iteration['seconds']:.2f} s, processor {iteration['processor_seconds']:.2f} s"
                    )
                    print(f"{name}: round {number}: {side}: {seconds}", file=sys.stderr, flush=True)
        except KeyboardInterrupt:
            print(f"interrupted: {name}: {len(found['ours'])} of {rounds} rounds", file=sys.stderr)
        finally:
            for worker in workers.values():
                worker.close()
    return found


def check_agreement(theirs: Sequence[float], ours: Sequence[float]) -> None:
    """Exits unless both sides computed the same logit, value and reward from the same prompt."""
    if any(abs(a - b) > 1e-4 for a, b in zip(theirs, ours, strict=True)):
        sys.exit(f"the two sides did not load the same models: TRL computed {theirs}, ours {ours}")


def speeds(results: Mapping[str, Mapping[str, Iterations]]) -> str:
    """The table of speed and memory."""
    rows = []
    for name, sides in results.items():
        episodes = CASES[name].episodes
        for side in SIDES:
            iterations = sides[side]
            rows.append(
                [
                    f"{name}: {side}",
                    f"{statistics.median(episodes / one['seconds'] for one in iterations):.2f}",
                    _ratio(sides, side, "seconds"),
                    _ratio(sides, side, "processor_seconds"),
                    f"{statistics.mean(one['tokens'] for one in iterations) / episodes:.1f}",
                    f"{max(one['memory_gb'] for one in iterations):.2f}",
                ]
            )
    relative = ["relative to TRL", "by processor time"]
    head = ["case: side", "episodes/s", *relative, "tokens/answer", "memory, GB"]
    return table(head, rows)


def _ratio(sides: Mapping[str, Iterations], side: str, seconds: str) -> str:
    """Median and range over the rounds of TRL's seconds over those of `side`."""
    pairs = zip(sides["TRL"], sides[side], strict=True)
    ratios = [theirs[seconds] / mine[seconds] for theirs, mine in pairs]
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def phases(results: Mapping[str, Mapping[str, Iterations]]) -> str:
    """The table of median processor time by phase."""
    rows = []
    for name, sides in results.items():
        for side in SIDES:
            columns = [
                [1000 * one["phases"][phase] / CASES[name].episodes for one in sides[side]]
                for phase in PHASES
            ]
            columns.append([sum(parts) for parts in zip(*columns, strict=True)])
            rows.append([f"{name}: {side}", *(f"{statistics.median(column):.0f}" for column in columns)])
    return table(["case: side, processor ms/episode", *PHASES, "sum"], rows)


def every_round(results: Mapping[str, Mapping[str, Iterations]]) -> str:
    """The table of the seconds of each round, those of the processor in brackets."""
    rows = [
        [f"{name}: {side}", ", ".join(_seconds(one) for one in sides[side])]
        for name, sides in results.items()
        for side in SIDES
    ]
    return table(["case: side", "seconds of each round (processor time)"], rows)


def _seconds(iteration: Mapping[str, Any]) -> str:
    return f"{iteration['seconds']:.1f} ({iteration['processor_seconds']:.1f})"


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    names = sys.argv[2:] or [name for name in CASES if name != "tiny"]
    if unknown := [name for name in names if name not in CASES]:
        sys.exit(f"{', '.join(unknown)}: expected some of {', '.join(CASES)}")
    pythons = {"TRL": str(trl_python()), "ours": sys.executable}
    results: dict[str, dict[str, Iterations]] = {}
    for name in names:
        found = measure(name, pythons, rounds)
        if found["ours"]:
            results[name] = found
        if len(found["ours"]) < rounds:
            break
    packages = [line for line in REQUIREMENTS.read_text(encoding="utf-8").splitlines() if "==" in line]
    print(f"{describe(sys.argv)}TRL's side: {', '.join(packages)}\n")
    print("\n\n".join(form(results) for form in (speeds, phases, every_round)))


if __name__ == "__main__":
    main()
