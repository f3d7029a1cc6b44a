"""The failure that ends all ranks, and how the reports of the ranks show it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from .reports import Report

KILLED = (
    "ended without an error message; it was probably killed, for example because the memory was full (see "
    "the system's log)"
)


@dataclass(frozen=True)
class Failure:
    """Why all ranks end: the failing rank, its phase, its message, and the exit code of all ranks.

    Attributes:
        spoken: whether the failing rank itself prints the message; otherwise rank 0 or rank 1 does.
        hung: whether the failing rank is still running.
    """

    rank: int
    phase: str
    message: str
    exit_code: int = 1
    spoken: bool = True
    hung: bool = False

    def __str__(self) -> str:
        return f"rank {self.rank} ({self.phase}): error: {self.message}"

    def is_told_by(self, rank: int) -> bool:
        """Whether this rank prints the message: one rank does."""
        return not self.spoken and rank == (0 if self.rank or self.hung else 1)

    def encoded(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def decoded(cls, value: bytes) -> Failure:
        return cls(**json.loads(value))


def killed(silent: Mapping[int, float], after: float, reports: Mapping[int, Report]) -> Failure | None:
    """The failure of the rank that has been silent for longest, if that is longer than `after` seconds.

    Args:
        silent: seconds since the last report of each rank that has not finished.
        reports: the last reports.
    """
    number = max(silent, key=lambda other: silent[other], default=None)
    if number is None or silent[number] <= after:
        return None
    phase = reports[number].phase if number in reports else "starting"
    return Failure(number, phase, KILLED, spoken=False)


def find_hang(reports: Mapping[int, Report], limit: float) -> Failure | None:
    """The failure of the rank for which all others wait, if a rank made no progress for `limit` seconds.

    A rank that waits in a collective waits for one that does not. If all wait, they wait in different
    collectives, and the message names all places.
    """
    running = {number: report for number, report in reports.items() if not report.finished}
    if all(report.idle <= limit for report in running.values()):
        return None
    suspects = {number: report for number, report in running.items() if not report.waits} or running
    number = min(suspects, key=lambda other: (suspects[other].step, -suspects[other].idle))
    hung = suspects[number]
    longest = max(report.idle for report in running.values())
    others = "; ".join(
        f"rank {other} {'waits' if report.waits else 'is'} at {report.place}"
        for other, report in sorted(running.items())
        if other != number
    )
    return Failure(
        number,
        hung.phase,
        f"no progress for {longest:.0f} s, at {hung.place}; {others}; all ranks end. If it was only slow, "
        "increase `rank_timeout`; the same command resumes",
        spoken=False,
        hung=True,
    )
