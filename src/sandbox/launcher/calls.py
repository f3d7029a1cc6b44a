"""System calls that Python 3.11 lacks."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from typing import Any

libc = ctypes.CDLL(None, use_errno=True)

_SIGNATURES: dict[str, Sequence[Any]] = {
    "unshare": (ctypes.c_int,),
    "mount": (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p),
    "umount2": (ctypes.c_char_p, ctypes.c_int),
    "pivot_root": (ctypes.c_char_p, ctypes.c_char_p),
    "prctl": (ctypes.c_int, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong),
    "sethostname": (ctypes.c_char_p, ctypes.c_size_t),
    "capset": (ctypes.c_void_p, ctypes.c_void_p),
}

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT = 1, 2, 4, 8, 32
MS_BIND, MS_REC, MS_PRIVATE = 4096, 16384, 1 << 18
MNT_DETACH = 2

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_SECCOMP, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 1, 4, 22, 24, 38


class StepFailed(Exception):
    """The kernel refused a step of the isolation; the message names the step and the error."""


def call(step: str, function: str, *arguments: Any) -> int:
    """Calls a function of the C library and returns its result.

    Raises:
        StepFailed: it returned an error.
    """
    called = getattr(libc, function)
    called.argtypes = _SIGNATURES[function]
    result: int = called(*arguments)
    if result < 0:
        raise StepFailed(f"{step}: {function}: {os.strerror(ctypes.get_errno())}")
    return result


def prctl(step: str, option: int, first: int = 0, *, second: int = 0) -> int:
    """Calls prctl; its unused arguments are zero, as some options require."""
    return call(step, "prctl", option, first, second, 0, 0)


def mount(
    target: str, flags: int, *, source: str = "none", kind: str | None = None, options: str = ""
) -> None:
    """Calls mount; the arguments that are not given are ones that it ignores."""
    call(
        f"mount {target}",
        "mount",
        os.fsencode(source),
        os.fsencode(target),
        None if kind is None else kind.encode(),
        flags,
        options.encode(),
    )
