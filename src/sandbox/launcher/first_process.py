"""Process 1 of the sandbox: drops its privileges, starts the program and reports how it ended."""

from __future__ import annotations

import json
import os
import signal
from typing import Any, NoReturn

from .calls import PR_SET_PDEATHSIG, prctl
from .privileges import ProcessLimits, drop_privileges, limit
from .program import run_to_its_end


def be_first_process(
    source: str, limits: ProcessLimits, *, status: int, token: int, verdict: int, messages: int
) -> NoReturn:
    """Runs the program in a child and waits for it; when this process ends, the kernel kills all others.

    Args:
        source: text of the program.
        limits: limits of the program's processes.
        status: descriptor for one JSON object, `{"error": …}` or `{"status", "cpu_seconds"}`.
        token, verdict, messages: descriptors for the program, see `program.run_to_its_end`.
    """
    try:
        os.setsid()
        # Process 1 gets only signals that it has a handler for; Python has one for SIGINT.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        prctl("end with the launcher", PR_SET_PDEATHSIG, signal.SIGKILL)
        limit(limits)
        drop_privileges()
        child = os.fork()
        if child == 0:
            run_to_its_end(source, token=token, verdict=verdict, messages=messages)
        for descriptor in (token, verdict, messages):
            os.close(descriptor)
        _report(status, _wait_for(child))
    except Exception as error:  # the program has not run, whatever it was
        _report(status, {"error": f"{type(error).__name__}: {error}"})
    finally:
        os._exit(0)


def _wait_for(child: int) -> dict[str, Any]:
    """Waits for the child, and meanwhile for orphans: a dead process that nobody waits for still counts."""
    while True:
        process, status, usage = os.wait4(-1, 0)
        if process == child:
            return {"status": status, "cpu_seconds": usage.ru_utime + usage.ru_stime}


def _report(status: int, report: dict[str, Any]) -> None:
    os.write(status, json.dumps(report).encode())
