"""Privileges and limits of the processes in the sandbox; what is dropped here cannot come back."""

from __future__ import annotations

import ctypes
import resource
from typing import NamedTuple

from . import seccomp
from .calls import PR_CAPBSET_DROP, PR_SET_DUMPABLE, PR_SET_NO_NEW_PRIVS, call, libc, prctl

_CAPABILITY_VERSION = 0x20080522
_HIGHEST_CAPABILITY = 63
_BESIDE_THE_PROGRAM = 2
"""Processes of the namespace that are not the program's: the launcher and process 1."""


class ProcessLimits(NamedTuple):
    """Limits of the kernel; `llamita.sandbox.programs.Limits` explains them."""

    cpu: int
    memory: int
    processes: int
    open_files: int
    disk: int


def limit(limits: ProcessLimits) -> None:
    """Sets the limits of this process and of its future children."""
    hard = {
        resource.RLIMIT_CPU: limits.cpu + 1,
        resource.RLIMIT_AS: limits.memory // limits.processes,
        resource.RLIMIT_NPROC: limits.processes + _BESIDE_THE_PROGRAM,
        resource.RLIMIT_NOFILE: limits.open_files,
        resource.RLIMIT_FSIZE: limits.disk,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_MEMLOCK: 0,
        resource.RLIMIT_MSGQUEUE: 0,
        resource.RLIMIT_SIGPENDING: 64,
    }
    for kind, value in hard.items():
        allowed = resource.getrlimit(kind)[1]
        value = value if allowed == resource.RLIM_INFINITY else min(value, allowed)
        resource.setrlimit(kind, (min(value, limits.cpu) if kind == resource.RLIMIT_CPU else value, value))


def drop_privileges() -> None:
    """Drops all capabilities and the way to get any, and forbids the system calls listed in `seccomp`.

    Raises:
        StepFailed: the kernel refused it.
    """
    for capability in range(_HIGHEST_CAPABILITY + 1):
        if libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) < 0 and capability == 0:
            prctl("drop capabilities", PR_CAPBSET_DROP, capability)
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION, 0)
    call("drop capabilities", "capset", header, (ctypes.c_uint32 * 6)())
    prctl("no new privileges", PR_SET_NO_NEW_PRIVS, 1)
    # Otherwise processes of this user could read the others' memory, and a crash would start a program of
    # the host that stores core dumps.
    prctl("no core dumps", PR_SET_DUMPABLE, 0)
    seccomp.install()
