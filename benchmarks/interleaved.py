"""Compares methods over several rounds: in each round every method runs once, in a process of its own."""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
from collections.abc import Iterable, Sequence

from machine import describe, table

Round = dict[tuple[str, str], dict[str, float]]
"""(model size, method) -> tokens per second and peak memory."""


def report_result(rate: float) -> None:
    """Prints the tokens per second and the peak memory of this process, for `compare` to read."""
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    print("RESULT " + json.dumps({"rate": rate, "memory": memory}))


def compare(
    script: str,
    methods: Iterable[str],
    sizes: Iterable[str],
    options: Sequence[str],
    rounds: int,
    reference: str,
) -> None:
    """Runs `python SCRIPT METHOD SIZE [OPTIONS …]` for each; prints medians and ratios to `reference`.

    Ctrl-C stops it; the table then has the completed rounds.
    """
    completed: list[Round] = []
    runs = [(size, method) for size in sizes for method in methods]
    try:
        while len(completed) < rounds:
            completed.append({run: _measure(script, *run, options) for run in runs})
    except KeyboardInterrupt:
        print(f"interrupted: {len(completed)} of {rounds} rounds completed", file=sys.stderr)
    if not completed:
        return
    print(f"{describe(sys.argv)}rounds: {len(completed)}\n")
    rows = []
    for size, method in runs:
        rates = [results[size, method]["rate"] for results in completed]
        share = statistics.median(
            results[size, method]["rate"] / results[size, reference]["rate"] for results in completed
        )
        memory = max(results[size, method]["memory"] for results in completed)
        rows.append(
            [f"{size}: {method}", f"{statistics.median(rates):,.0f}", f"{share:.3f}", f"{memory:.2f}"]
        )
    print(table(["model: method", "tokens/s", f"relative to {reference}", "peak memory, GB"], rows))


def _measure(script: str, size: str, method: str, options: Sequence[str]) -> dict[str, float]:
    process = subprocess.run(
        [sys.executable, script, method, size, *options], capture_output=True, text=True, check=False
    )
    if process.returncode:
        sys.exit(f"{size}: {method}: exit code {process.returncode}\n{process.stderr}")
    line = next(line for line in process.stdout.splitlines() if line.startswith("RESULT "))
    result: dict[str, float] = json.loads(line.removeprefix("RESULT "))
    print(f"{size}: {method}: {result['rate']:,.0f} tokens/s", file=sys.stderr, flush=True)
    return result
