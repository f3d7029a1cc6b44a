"""Reads a job from stdin, runs it isolated within its limits, and writes the result to stdout; all JSON."""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import time
from typing import Any, NamedTuple

from .calls import PR_SET_DUMPABLE, PR_SET_PDEATHSIG, StepFailed, prctl
from .first_process import be_first_process
from .namespaces import become_nobody, enter_namespaces
from .privileges import ProcessLimits
from .program import TOKEN_BYTES
from .root import change_root, open_sources

KEPT_BYTES = 4096
"""Last bytes of the program's messages that are part of the result."""


def main() -> None:
    """Runs the job and writes `{"refused": why}` or the result of `_supervise`."""
    job = json.load(sys.stdin)
    try:
        result = _run(job)
    except (StepFailed, OSError) as error:
        result = {"refused": str(error)}
    json.dump(result, sys.stdout)


def _run(job: dict[str, Any]) -> dict[str, Any]:
    """Isolates this process, starts the program in a new PID namespace and supervises it."""
    limits = job["limits"]
    for_processes = ProcessLimits(
        **{name: limits[name] for name in ("cpu", "memory", "processes", "open_files", "disk")}
    )
    enter_namespaces()
    sources = open_sources(job["paths"])
    become_nobody()
    prctl("no core dumps", PR_SET_DUMPABLE, 0)
    prctl("end with the main process", PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != job["parent"]:
        raise StepFailed("the main process ended")
    change_root(sources, size=limits["disk"], files=limits["files"])
    for descriptor in sources.values():
        os.close(descriptor)
    token, status, verdict, messages = (os.pipe() for _ in range(4))
    process = os.fork()
    if process == 0:
        be_first_process(
            job["program"],
            for_processes,
            status=status[1],
            token=token[0],
            verdict=verdict[1],
            messages=messages[1],
        )
    for descriptor in (token[0], status[1], verdict[1], messages[1]):
        os.close(descriptor)
    secret = os.urandom(TOKEN_BYTES)  # made after the fork: it is not in the program's memory
    os.write(token[1], secret)
    ends = _Ends(status=status[0], verdict=verdict[0], messages=messages[0])
    return _supervise(process, ends, secret, wall=limits["wall"], output=limits["output"])


class _Ends(NamedTuple):
    """Descriptors to read from: how process 1 ended the program, the program's verdict, and its stderr."""

    status: int
    verdict: int
    messages: int


def _supervise(process: int, ends: _Ends, secret: bytes, *, wall: float, output: int) -> dict[str, Any]:
    """Waits until all processes have ended, and kills them at a limit.

    Returns:
        `passed`; `limit`, the limit at which the processes were killed ("timeout", "output") or None;
        `status`, the program's wait status, or None if process 1 was killed before; `cpu_seconds` of the
        program; `seconds` of wall time; `messages`, the last bytes of stderr.

    Raises:
        StepFailed: process 1 could not drop its privileges; the program did not run.
    """
    started = time.monotonic()
    received = {descriptor: bytearray() for descriptor in (ends.status, ends.verdict, ends.messages)}
    written, reached = 0, None
    poll = select.poll()
    for descriptor in received:
        poll.register(descriptor, select.POLLIN)
    still_open = set(received)
    while still_open:
        left = wall - (time.monotonic() - started)
        ready = poll.poll(None if reached else max(left, 0) * 1000)
        for descriptor, _ in ready:
            chunk = os.read(descriptor, 1 << 16)
            received[descriptor] = (received[descriptor] + chunk)[-KEPT_BYTES:]
            if not chunk:
                poll.unregister(descriptor)
                still_open.remove(descriptor)
            written += len(chunk) if descriptor == ends.messages else 0
        if not reached and (left <= 0 or written > output):
            reached = "timeout" if left <= 0 else "output"
            os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    report = json.loads(received[ends.status] or "{}")
    if "error" in report:
        raise StepFailed(report["error"])
    return {
        "passed": received[ends.verdict] == secret and report.get("status") == 0 and not reached,
        "limit": reached,
        "status": report.get("status"),
        "cpu_seconds": report.get("cpu_seconds"),
        "seconds": time.monotonic() - started,
        "messages": received[ends.messages].decode(errors="replace"),
    }
