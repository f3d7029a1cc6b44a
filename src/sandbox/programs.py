"""Runs programs that a model wrote, isolated from the host, and returns how they ended."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

from ..console import track
from ..errors import ConfigError
from .interpreter import needed_files, run_main
from .launcher.program import EXIT, MEMORY

MB = 1 << 20
DETAIL_LINES = 12


@dataclass(frozen=True)
class Limits:
    """Limits of one program; the defaults are for HumanEval.

    Attributes:
        wall: seconds from its start; then all its processes are killed.
        cpu: seconds of processor time of each process.
        memory: bytes of address space of all processes together; each may use an equal share. Files in /tmp
            count in `disk` instead.
        processes: processes and threads at the same time, the first one included.
        open_files: open files of each process.
        files: files and folders in /tmp.
        disk: bytes of all files in /tmp, which is in memory.
        output: bytes written to stderr; what is written to stdout is discarded.
    """

    wall: float = 10.0
    cpu: int = 10
    memory: int = 512 * MB
    processes: int = 1
    open_files: int = 64
    files: int = 64
    disk: int = 16 * MB
    output: int = MB


@dataclass(frozen=True)
class Outcome:
    """How a program ended.

    Attributes:
        passed: whether it ran to its last line without an error.
        reason: "passed"; "exception"; "exit", it ended itself before its last line; "timeout"; "memory", a
            MemoryError; "output", too much on stderr; "killed", by a signal, of its own or of the kernel.
        detail: last lines of its stderr, or what happened.
        seconds: wall time of the program, without the start of the sandbox.
    """

    passed: bool
    reason: str
    detail: str
    seconds: float


_REMEDY = (
    "a program written by a model never runs with less isolation; docs/sandbox.md lists what the kernel, a "
    "container or a cluster must allow"
)
_GRACE = 60.0  # seconds to start and to end, on a busy machine
_PROBE = """
import os, time
if os.getpid() != 2 or os.getuid() != 65534 or sorted(os.listdir("/")) != EXPECTED:
    raise SystemError(f"wrong process, user or root: {os.getpid()}, {os.getuid()}, {os.listdir('/')}")
if os.fork() == 0:
    time.sleep(60)
try:
    os.fork()
except BlockingIOError:
    pass
else:
    raise SystemError("no limit on processes")
"""


def check_isolation() -> None:
    """Checks that this machine can isolate a program: runs one that tries its limits.

    Raises:
        ConfigError: the kernel, the container or the user's rights do not allow it; the message names why.
    """
    top_level = sorted({path.split("/")[1] for path in (*needed_files(), "/dev", "/tmp")})
    outcome = run_program(_PROBE.replace("EXPECTED", repr(top_level)), Limits(processes=2))
    if not outcome.passed:
        raise ConfigError(
            f"the sandbox does not isolate ({outcome.reason}: {outcome.detail}); Linux 5.14 or newer is "
            f"needed, which counts processes by user namespace; {_REMEDY}"
        )


def run_program(program: str, limits: Limits = Limits()) -> Outcome:
    """Runs a Python program of the standard library in a sandbox of its own.

    Raises:
        ConfigError: the sandbox cannot isolate programs here; the program did not run.
    """
    job = {
        "program": program,
        "limits": asdict(limits),
        "paths": needed_files(),
        "parent": os.getpid(),
    }
    seconds = limits.wall + _GRACE
    try:
        ended = run_main("main", given=json.dumps(job), seconds=seconds)
    except subprocess.TimeoutExpired:
        return Outcome(False, "timeout", f"killed after {seconds:.0f} s; the machine is too busy", seconds)
    if ended.returncode == -signal.SIGKILL:
        return Outcome(False, "killed", "the system killed the sandbox, out of memory perhaps", 0.0)
    if ended.returncode:
        raise ConfigError(f"the sandbox failed: {ended.stderr.strip()[-500:]}")
    result = json.loads(ended.stdout)
    if "refused" in result:
        raise ConfigError(f"the sandbox cannot isolate programs here: {result['refused']}; {_REMEDY}")
    return _outcome(result, limits)


def run_programs(
    programs: Sequence[str],
    limits: Limits = Limits(),
    *,
    workers: int,
    label: str | None = None,
) -> list[Outcome]:
    """Runs programs, `workers` at a time, and returns their outcomes in order; shows progress as `label`.

    Raises:
        ConfigError: as `run_program` does; programs that have not started are dropped.
    """
    pool = ThreadPoolExecutor(workers)
    try:
        results = pool.map(lambda program: run_program(program, limits), programs)
        return list(track(results, label, len(programs), unit="programs"))
    finally:
        pool.shutdown(cancel_futures=True)


def _outcome(result: dict[str, Any], limits: Limits) -> Outcome:
    reason, detail = _reason(result, limits)
    lines = [line for line in (*_printable(result["messages"]).splitlines(), detail) if line]
    return Outcome(reason == "passed", reason, "\n".join(lines[-DETAIL_LINES:]), result["seconds"])


def _reason(result: dict[str, Any], limits: Limits) -> tuple[str, str]:
    """Returns the reason, and a line that explains it where stderr does not."""
    if result["passed"]:
        return "passed", ""
    if result["limit"] == "timeout":
        return "timeout", f"killed after {limits.wall:g} s"
    if result["limit"] == "output":
        return "output", f"killed after {limits.output:,} bytes on stderr"
    if result["status"] is None:
        return "killed", "the system killed the sandbox, out of memory perhaps"
    code = os.waitstatus_to_exitcode(result["status"])
    if code == -signal.SIGXCPU or (code == -signal.SIGKILL and result["cpu_seconds"] >= limits.cpu):
        return "timeout", f"killed after {limits.cpu} s of processor time"
    if code < 0:
        return "killed", f"signal {-code} ({signal.strsignal(-code)})"
    if code == 0:
        return "exit", "ended with exit code 0 before its last line"
    return {MEMORY: "memory", EXIT: "exit"}.get(code, "exception"), ""


def _printable(text: str) -> str:
    """Replaces control characters, with which a program could change the user's terminal."""
    return "".join(
        letter if letter.isprintable() or letter in "\n\t" else "\N{REPLACEMENT CHARACTER}" for letter in text
    )
