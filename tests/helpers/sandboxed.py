"""Runs programs in the sandbox, also as another user of this machine than root."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import site
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Protocol

import psutil
import pytest

from llamita.errors import ConfigError
from llamita.sandbox.programs import Limits, Outcome, check_isolation, run_program

ORDINARY_USER = 65533
ROOTS_PROGRAMS = 65534
"""User of the programs that root runs."""

HOSTILE = """
import ctypes, errno, os, sys
libc = ctypes.CDLL(None, use_errno=True)

def fails(name, *arguments):
    "Calls a function of the C library that must fail; returns the name of its error."
    ctypes.set_errno(0)
    result = getattr(libc, name)(*arguments)
    assert result == -1, f"{name}{arguments} returned {result}"
    return errno.errorcode[ctypes.get_errno()]

def raises(call, *arguments):
    try:
        result = call(*arguments)
    except OSError as error:
        return errno.errorcode[error.errno]
    raise AssertionError(f"{call}{arguments} returned {result}")
"""
"""First lines of programs that attack through the C library."""

_SERVER = """
import json, os, site, sys
site.addsitedir({packages!r})
from dataclasses import asdict
from llamita.errors import ConfigError
from llamita.sandbox.programs import Limits, check_isolation, run_program
try:
    check_isolation()
    print(json.dumps("ready"), flush=True)
except ConfigError as error:
    print(json.dumps(str(error)), flush=True)
for line in sys.stdin:
    program, limits = json.loads(line)
    print(json.dumps(asdict(run_program(program, Limits(**limits)))), flush=True)
"""


class Runner(Protocol):
    """Runs a program in the sandbox as some user; `user` is the number its processes have outside."""

    user: int

    def __call__(self, program: str, **limits: float) -> Outcome: ...


class AsThisUser:
    """Runs programs from this process; skips the test if this machine cannot isolate them."""

    def __init__(self) -> None:
        self.user = os.getuid() or ROOTS_PROGRAMS
        try:
            check_isolation()
        except ConfigError as error:
            pytest.skip(str(error))

    def __call__(self, program: str, **limits: float) -> Outcome:
        return run_program(program, Limits(**limits))  # type: ignore[arg-type]  # names and values are the test's


class AsOrdinaryUser:
    """Runs programs from a process of an ordinary user, which root starts once and then asks."""

    def __init__(self) -> None:
        self.user = ORDINARY_USER
        self.process = subprocess.Popen(
            [interpreter_for_all(), "-c", _SERVER.format(packages=site.getsitepackages()[0])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd="/",
            user=ORDINARY_USER,
            group=ORDINARY_USER,
            extra_groups=[],
        )
        if (answer := self._answer()) != "ready":
            self.close()
            pytest.skip(str(answer))

    def __call__(self, program: str, **limits: float) -> Outcome:
        assert self.process.stdin
        given = Limits(**limits)  # type: ignore[arg-type]  # as above
        self.process.stdin.write(json.dumps([program, asdict(given)]) + "\n")
        self.process.stdin.flush()
        return Outcome(**self._answer())

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()

    def _answer(self) -> object:
        assert self.process.stdout
        return json.loads(self.process.stdout.readline() or '"the process of the ordinary user ended"')


def interpreter_for_all() -> str:
    """Returns a Python of this version that an ordinary user may run; skips the test if there is none."""
    name = f"python3.{sys.version_info.minor}"
    for path in filter(None, (sys._base_executable, shutil.which(name, path="/usr/bin:/usr/local/bin"))):
        code = f"import site; site.addsitedir({site.getsitepackages()[0]!r}); import llamita.errors, rich"
        try:
            subprocess.run([path, "-c", code], user=ORDINARY_USER, cwd="/", check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            continue
        return path
    pytest.skip("no Python and packages that an ordinary user may read")


def runners() -> Iterator[tuple[str, type[AsThisUser] | type[AsOrdinaryUser]]]:
    """Yields the ways to run programs here: only root can also be another user."""
    yield "this user", AsThisUser
    if os.getuid() == 0:
        yield "ordinary user", AsOrdinaryUser


class Marked:
    """Marks the processes of a program by a limit on memory that no other process of this machine has."""

    def __init__(self, processes: int) -> None:
        self.share = (200 << 20) + random.SystemRandom().getrandbits(24)
        self.limits = {"processes": processes, "memory": self.share * processes}

    def running(self) -> list[int]:
        """Returns the ids of the program's processes, process 1 of its namespace included."""
        return [process for process in psutil.pids() if self._limit(process) == self.share]

    @staticmethod
    def _limit(process: int) -> int | None:
        try:
            text = Path(f"/proc/{process}/limits").read_text(encoding="ascii")
        except OSError:
            return None
        found = re.search(r"Max address space +(\d+)", text)
        return int(found[1]) if found else None


def sleeping_process(user: int) -> subprocess.Popen[bytes]:
    """Starts a process of the host that a program of the same user may want to kill."""
    as_user = {"user": user, "group": user, "extra_groups": []} if os.getuid() == 0 else {}
    return subprocess.Popen(["sleep", "600"], cwd="/", **as_user)  # type: ignore[call-overload, no-any-return]  # a dict of options


def readable_by_all(path: Path, text: str) -> Path:
    """Writes a file that every user may read, and opens the folders above it, as far as pytest made them."""
    path.write_text(text)
    path.chmod(0o644)
    for folder in path.parents:
        if "pytest-" in folder.as_posix():
            folder.chmod(0o755)
    return path
