"""Programs that use up memory and processors, never end, or attack other processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import psutil
import pytest

from ..helpers.sandboxed import HOSTILE, AsThisUser, Marked, Runner, sleeping_process
from ..helpers.waiting import wait_until

MB = 1 << 20


ENDLESS = {
    "loop": "while True: pass",
    "sleep": "import time\ntime.sleep(1000)",
    "loop in C": HOSTILE + "while True: libc.getppid()",
    "signals ignored": HOSTILE
    + "for number in range(1, 65): libc.signal(number, ctypes.c_void_p(1))\nwhile True: pass",
    "daemon": HOSTILE
    + """
for _ in range(2):
    if libc.fork():
        libc.pause()
    os.setsid()
for number in range(1, 65):
    libc.signal(number, ctypes.c_void_p(1))
while True: pass
""",
    "stopped": "import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)",
    "stdout": "while True: print('x' * 100_000)",
    "regular expression": "import re\nre.match('(a+)+$', 'a' * 60 + 'b')",
}


@pytest.mark.parametrize("program", ENDLESS.values(), ids=ENDLESS.keys())
def test_endless_programs(sandbox: Runner, program: str) -> None:
    marked = Marked(processes=4)
    outcome = sandbox(program, wall=0.5, **marked.limits)
    assert (outcome.reason, outcome.detail) == ("timeout", "killed after 0.5 s")
    assert 0.5 <= outcome.seconds < 5
    assert not marked.running()


@pytest.mark.parametrize("ignored", ["", HOSTILE + "libc.signal(24, ctypes.c_void_p(1))\n"])
def test_processor_time_is_limited(sandbox: Runner, ignored: str) -> None:
    outcome = sandbox(f"{ignored}while True: pass", cpu=1, wall=60)
    assert (outcome.reason, outcome.detail) == ("timeout", "killed after 1 s of processor time")


def test_what_a_program_leaves_behind_ends_with_it(sandbox: Runner) -> None:
    marked = Marked(processes=4)
    outcome = sandbox(
        HOSTILE
        + """
if libc.fork() == 0:
    os.setsid()
    if libc.fork() == 0:
        for number in range(1, 65):
            libc.signal(number, ctypes.c_void_p(1))
        while True: pass
    os._exit(0)
""",
        wall=30,
        **marked.limits,
    )
    assert outcome.passed
    assert outcome.seconds < 15
    assert not marked.running()


BOMBS = {
    "fork": "while True:\n    try: os.fork()\n    except OSError: pass",
    "fork in C": "while True: libc.fork()",
    "orphans": "while True:\n    if libc.fork() == 0 and libc.fork() == 0: os.setsid()",
}


@pytest.mark.parametrize("program", BOMBS.values(), ids=BOMBS.keys())
def test_fork_bombs(sandbox: Runner, program: str) -> None:
    marked = Marked(processes=16)
    outcome = sandbox(HOSTILE + program, wall=0.8, **marked.limits)
    assert outcome.reason == "timeout"
    assert not marked.running()


def test_number_of_processes_and_threads(sandbox: Runner) -> None:
    outcome = sandbox(
        HOSTILE
        + """
started = 1
while (child := libc.fork()) > 0:
    started += 1
    assert started < 100
if child == 0:
    libc.pause()
assert started == 6, started
""",
        processes=6,
    )
    assert outcome.passed, outcome.detail
    outcome = sandbox("import threading, time\nthreading.Thread(target=time.sleep, args=(1,)).start()")
    assert "can't start new thread" in outcome.detail


def test_memory_of_one_process(sandbox: Runner) -> None:
    assert sandbox("x = bytearray(200 << 20)", memory=400 * MB).passed
    assert sandbox("x = bytearray(400 << 20)", memory=400 * MB).reason == "memory"
    assert (
        sandbox("x = []\nwhile True: x.append(bytes(100_000))", memory=100 * MB, wall=60).reason == "memory"
    )
    outcome = sandbox(
        HOSTILE
        + """
libc.malloc.restype = libc.mmap.restype = ctypes.c_void_p
assert libc.malloc(ctypes.c_size_t(1 << 30)) is None
for flags in (0x22, 0x21, 0x4022):  # private, shared, without reserve
    assert libc.mmap(None, ctypes.c_size_t(1 << 30), 3, flags, -1, 0) == ctypes.c_void_p(-1).value
""",
        memory=200 * MB,
    )
    assert outcome.passed, outcome.detail


def test_memory_of_all_processes_together(sandbox: Runner) -> None:
    outcome = sandbox(
        HOSTILE
        + """
import time
read, write = os.pipe()
for _ in range(3):
    if os.fork() == 0:
        break
held, step = [], 1 << 20
try:
    while True:
        held.append(bytearray(step))
except MemoryError:
    pass
if os.getpid() == 2:
    total = len(held) + sum(int.from_bytes(os.read(read, 4), "little") for _ in range(3))
    assert 40 < total <= 400, total
else:
    os.write(write, len(held).to_bytes(4, "little"))
    time.sleep(60)
""",
        processes=4,
        memory=400 * MB,
        wall=60,
    )
    assert outcome.passed, outcome.detail


def test_signals_reach_no_other_process(sandbox: Runner) -> None:
    victim = sleeping_process(sandbox.user)
    try:
        outcome = sandbox(
            HOSTILE
            + f"""
import signal
assert os.getpid() == 2 and os.getppid() == 1
for pid in ({victim.pid}, {os.getpid()}, *range(3, 300)):
    for call in (os.kill, os.killpg):
        assert raises(call, pid, 9) == "ESRCH", pid
for number in range(1, 65):
    libc.kill(1, number)  # process 1 has no handlers
assert os.getppid() == 1
for number in range(1, 65):
    libc.signal(number, ctypes.c_void_p(1))
assert raises(os.kill, -1, 9) == "ESRCH"
os.kill(0, signal.SIGTERM)
prlimit = {{"x86_64": 302, "aarch64": 261}}[os.uname().machine]
assert fails("syscall", prlimit, 1, 0, 0, 0) == "EPERM"
assert fails("ptrace", 16, {victim.pid}, 0, 0) == "EPERM"
assert fails("ptrace", 16, 1, 0, 0) == "EPERM"
"""
        )
        assert outcome.passed, outcome.detail
        assert sandbox("import os\nos.kill(0, 9)").reason == "killed"
        assert (
            sandbox("import os, time\nif os.fork() == 0: os.kill(-1, 9)\ntime.sleep(9)", processes=2).reason
            == "killed"
        )
        assert victim.poll() is None
    finally:
        victim.kill()
        victim.wait()


@pytest.mark.parametrize("victim", ["main", "launcher"])
def test_a_killed_main_process_leaves_nothing_running(victim: str) -> None:
    AsThisUser()
    marked = Marked(processes=1)
    limits = f"Limits(wall=300, cpu=300, memory={marked.limits['memory']})"
    code = f"from llamita.sandbox.programs import *\nrun_program('while True: pass', {limits})"
    main = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: len(marked.running()) == 2)
        [launcher] = psutil.Process(main.pid).children()
        os.kill(main.pid if victim == "main" else launcher.pid, signal.SIGKILL)
        wait_until(lambda: not marked.running())
    finally:
        main.kill()
        main.wait()
