"""Where the kernel does not isolate, no program runs, and the error says why."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from llamita.errors import ConfigError
from llamita.sandbox import interpreter, programs
from llamita.sandbox.launcher import namespaces, seccomp
from llamita.sandbox.launcher.calls import StepFailed

from ..helpers.sandboxed import AsThisUser

_WITHOUT = """
import os, sys
from llamita.errors import ConfigError
from llamita.sandbox import programs
from llamita.sandbox.launcher import calls, seccomp

programs.needed_files()  # the filter below is not meant for it
number = seccomp.FORBIDDEN[{name!r}][seccomp.ARCHITECTURES[os.uname().machine].column]
calls.prctl("no new privileges", calls.PR_SET_NO_NEW_PRIVS, 1)
refuse, allow = (6, 0, 0, seccomp.ERROR | {error}), (6, 0, 0, seccomp.ALLOW)
seccomp.install([(0x20, 0, 0, 0), (0x15, 0, 1, number), refuse, allow])
for call in (programs.check_isolation, lambda: programs.run_program("open({ran!r}, 'w')")):
    try:
        call()
    except ConfigError as error:
        print(error)
    else:
        sys.exit("no ConfigError")
"""


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("unshare", errno.EPERM),
        ("unshare", errno.ENOSPC),
        ("mount", errno.EACCES),
        ("pivot_root", errno.EINVAL),
    ],
)
def test_a_kernel_that_refuses_a_step(tmp_path: Path, name: str, error: int) -> None:
    """Another filter of system calls takes the part of the kernel."""
    if os.uname().machine not in seccomp.ARCHITECTURES:
        pytest.skip("the test's filter is for the sandbox's processors only")
    ran = tmp_path / "ran"
    code = _WITHOUT.format(name=name, error=int(error), ran=str(ran))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.strip().splitlines()
    assert len(lines) == 2
    for line in lines:
        assert line.startswith("the sandbox cannot isolate programs here: ")
        assert os.strerror(error) in line or name != "unshare"
        assert "never runs with less isolation; docs/sandbox.md lists" in line
    assert not ran.exists()


def test_no_refusal_where_util_linux_gets_namespaces() -> None:
    """Otherwise a fault of the sandbox would only skip the tests of hostile programs."""
    unshare = ["unshare", "--user", "--map-root-user", "--mount", "--pid", "--fork", "--net"]
    try:
        subprocess.run([*unshare, "mount", "-t", "tmpfs", "none", "/dev"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"util-linux gets none: {error}")
    programs.check_isolation()


def test_other_processors_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "uname", lambda: os.uname_result(("Linux", "host", "6.1", "", "riscv64")))
    with pytest.raises(StepFailed, match="none for riscv64, only x86_64, aarch64"):
        seccomp.install()


def test_a_container_without_nobody_is_refused(tmp_path: Path) -> None:
    for text, accepted in (
        ("0 1000 1\n", False),
        ("0 1000 1\n1 100000 65536\n", True),
        ("0 0 4294967295", True),
    ):
        path = tmp_path / "uid_map"
        path.write_text(text)
        if accepted:
            namespaces._check_mapped(str(path))
        else:
            with pytest.raises(StepFailed, match="container without user 65534"):
                namespaces._check_mapped(str(path))


def test_limits_that_cannot_be_set() -> None:
    AsThisUser()
    with pytest.raises(ConfigError, match="ZeroDivisionError"):
        programs.run_program("x = 1", programs.Limits(processes=0))


def test_an_interpreter_that_does_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "_base_executable", "/usr/bin/false")
    interpreter.needed_files.cache_clear()
    try:
        with pytest.raises(ConfigError, match="cannot list the files of Python"):
            programs.check_isolation()
    finally:
        interpreter.needed_files.cache_clear()
