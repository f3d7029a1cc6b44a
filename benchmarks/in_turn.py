"""Several ways of doing the same, each in a process of its own, one after the other, several rounds."""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
from collections.abc import Iterable, Sequence

from machine import describe, table


def tell(rate: float) -> None:
    """What such a process says at its end: tokens a second, and its peak memory."""
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    print("RESULT " + json.dumps({"rate": rate, "memory": memory}))


def compare(
    script: str, ways: Iterable[str], sizes: Iterable[str], given: Sequence[str], rounds: int, reference: str
) -> None:
    """Runs `python SCRIPT WAY SIZE [GIVEN …]` for each; prints medians and shares of `reference`."""
    found: dict[tuple[str, str], list[dict[str, float]]] = {}
    turns = [(size, way) for size in sizes for way in ways]
    for _ in range(rounds):
        for size, way in turns:
            done = subprocess.run(
                [sys.executable, script, way, size, *given], capture_output=True, text=True, check=False
            )
            if done.returncode:
                sys.exit(f"{size}: {way}:\n{done.stderr}")
            line = next(line for line in done.stdout.splitlines() if line.startswith("RESULT "))
            result = json.loads(line.removeprefix("RESULT "))
            found.setdefault((size, way), []).append(result)
            print(f"{size}: {way}: {result['rate']:,.0f} tokens/s", file=sys.stderr, flush=True)
    print(describe(sys.argv))
    rows = []
    for (size, way), results in found.items():
        rates = [result["rate"] for result in results]
        theirs = [result["rate"] for result in found[size, reference]]
        share = statistics.median(rate / their for rate, their in zip(rates, theirs, strict=True))
        memory = max(result["memory"] for result in results)
        rows.append([f"{size}: {way}", f"{statistics.median(rates):,.0f}", f"{share:.3f}", f"{memory:.2f}"])
    print(table(["model: way", "tokens/s", f"of {reference}", "peak memory, GB"], rows))
