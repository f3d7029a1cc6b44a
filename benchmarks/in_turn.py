"""Several ways of doing the same, each in a process of its own, one after the other, several rounds."""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
from collections.abc import Iterable, Sequence

from machine import describe, table

Round = dict[tuple[str, str], dict[str, float]]
"""Size and way -> tokens a second and peak memory."""


def tell(rate: float) -> None:
    """What such a process says at its end: tokens a second, and its peak memory."""
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    print("RESULT " + json.dumps({"rate": rate, "memory": memory}))


def compare(
    script: str, ways: Iterable[str], sizes: Iterable[str], given: Sequence[str], rounds: int, reference: str
) -> None:
    """Runs `python SCRIPT WAY SIZE [GIVEN …]` for each; prints medians and shares of `reference`.

    Ctrl-C ends it after the rounds that are whole.
    """
    whole: list[Round] = []
    turns = [(size, way) for size in sizes for way in ways]
    try:
        while len(whole) < rounds:
            whole.append({turn: _take(script, *turn, given) for turn in turns})
    except KeyboardInterrupt:
        print(f"stopped: {len(whole)} of {rounds} rounds", file=sys.stderr)
    if not whole:
        return
    print(f"{describe(sys.argv)}rounds: {len(whole)}\n")
    rows = []
    for size, way in turns:
        rates = [found[size, way]["rate"] for found in whole]
        share = statistics.median(
            found[size, way]["rate"] / found[size, reference]["rate"] for found in whole
        )
        memory = max(found[size, way]["memory"] for found in whole)
        rows.append([f"{size}: {way}", f"{statistics.median(rates):,.0f}", f"{share:.3f}", f"{memory:.2f}"])
    print(table(["model: way", "tokens/s", f"of {reference}", "peak memory, GB"], rows))


def _take(script: str, size: str, way: str, given: Sequence[str]) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, script, way, size, *given], capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"{size}: {way}:\n{done.stderr}")
    line = next(line for line in done.stdout.splitlines() if line.startswith("RESULT "))
    result: dict[str, float] = json.loads(line.removeprefix("RESULT "))
    print(f"{size}: {way}: {result['rate']:,.0f} tokens/s", file=sys.stderr, flush=True)
    return result
