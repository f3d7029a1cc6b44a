"""The filter of system calls, run by a small interpreter of BPF for both architectures, and its numbers."""

from __future__ import annotations

import errno
import re
from pathlib import Path

import pytest

from llamita.sandbox.launcher.seccomp import ALLOW, ARCHITECTURES, ERROR, FORBIDDEN, KILL, instructions

HEADERS = {
    "x86_64": Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
    "aarch64": Path("/usr/include/asm-generic/unistd.h"),
}
EPERM, ENOSYS, EAFNOSUPPORT = (ERROR | number for number in (errno.EPERM, errno.ENOSYS, errno.EAFNOSUPPORT))
ALLOWED = {"x86_64": (0, 1, 9, 12, 39, 60, 318, 334), "aarch64": (63, 64, 172, 222, 278, 293)}


def verdict(architecture: str, number: int, first: int = 0, audit: int | None = None) -> int:
    """Runs the filter on one system call."""
    words = {0: number, 4: ARCHITECTURES[architecture].audit if audit is None else audit, 16: first}
    program, place, value = instructions(ARCHITECTURES[architecture]), 0, 0
    while True:
        operation, if_true, if_false, constant = program[place]
        place += 1
        if operation == 0x06:
            return constant
        if operation == 0x20:
            value = words[constant]
        else:
            holds = {0x15: value == constant, 0x35: value >= constant, 0x45: bool(value & constant)}[
                operation
            ]
            place += if_true if holds else if_false


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_verdicts(architecture: str) -> None:
    known = ARCHITECTURES[architecture]
    for name, numbers in FORBIDDEN.items():
        number = numbers[known.column]
        assert number is None or verdict(architecture, number) == EPERM, name
    assert all(verdict(architecture, number) == ALLOW for number in ALLOWED[architecture])
    assert verdict(architecture, 436) == ALLOW  # close_range
    for name, number in {"clone3": 435, "io_uring_setup": 425, "open_tree": 428, "unknown": 10_000}.items():
        assert verdict(architecture, number) == ENOSYS, name
    for call in (known.socket, known.socketpair):
        assert verdict(architecture, call, 1) == ALLOW
        assert {verdict(architecture, call, family) for family in (2, 10, 16, 17, 38, 40)} == {EAFNOSUPPORT}
    assert verdict(architecture, known.clone, 0x01200011) == ALLOW  # fork
    assert verdict(architecture, known.clone, 0x003D0F00) == ALLOW  # a thread
    for flag in (0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000):
        assert verdict(architecture, known.clone, flag | 17) == EPERM
    assert verdict(architecture, known.prctl, 4) == EPERM
    assert verdict(architecture, known.prctl, 15) == ALLOW
    assert verdict(architecture, known.prlimit, 0) == ALLOW
    assert verdict(architecture, known.prlimit, 1) == EPERM


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_other_calling_conventions_end_the_program(architecture: str) -> None:
    assert verdict(architecture, 1, audit=0x40000003) == KILL  # i386
    assert verdict(architecture, 1, audit=0) == KILL
    assert verdict(architecture, 0x40000001) == KILL  # x32


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_numbers_are_those_of_the_kernel(architecture: str) -> None:
    if not HEADERS[architecture].is_file():
        pytest.skip(f"no {HEADERS[architecture]}")
    pairs = re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", HEADERS[architecture].read_text())
    numbers = {name: int(number) for name, number in pairs}
    known = ARCHITECTURES[architecture]
    for name, columns in FORBIDDEN.items():
        assert columns[known.column] == numbers.get(name), name
    assert (known.socket, known.socketpair, known.clone, known.prctl, known.prlimit) == tuple(
        numbers[name] for name in ("socket", "socketpair", "clone", "prctl", "prlimit64")
    )
