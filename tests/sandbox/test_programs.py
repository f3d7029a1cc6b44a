"""Outcomes of programs: what counts as passed, and which reasons there are for the others."""

from __future__ import annotations

import pytest

from llamita.errors import ConfigError
from llamita.sandbox import programs
from llamita.sandbox.programs import Limits, Outcome, check_isolation, run_programs

from ..helpers.sandboxed import HOSTILE, AsThisUser, Runner

SOLVED = "def double(x):\n    return 2 * x\n\n"
CHECK = "def check(candidate):\n    assert candidate(4) == 8\n\ncheck(double)\n"


def test_right_and_wrong_programs(sandbox: Runner) -> None:
    right = sandbox(SOLVED + CHECK)
    assert (right.passed, right.reason) == (True, "passed")
    wrong = sandbox(SOLVED.replace("2", "3") + CHECK)
    assert (wrong.passed, wrong.reason) == (False, "exception")
    assert wrong.detail.splitlines()[-1] == "AssertionError"
    assert "assert candidate(4) == 8" in wrong.detail
    assert "launcher" not in wrong.detail


@pytest.mark.parametrize(
    "program",
    ["x = = 1", "x = 1\n  y = 2", "\0", "raise BaseException", "x = '\ud800'; assert x == 2", "import torch"],
)
def test_programs_that_cannot_run_fail(sandbox: Runner, program: str) -> None:
    assert sandbox(program).reason == "exception"


def test_annotations_are_evaluated(sandbox: Runner) -> None:
    """As where the program is a file of its own: a type that was not imported is an error."""
    outcome = sandbox("def candidate(x: Optional[int]) -> int: return 8")
    assert outcome.detail.splitlines()[-1] == "NameError: name 'Optional' is not defined"


def test_the_standard_library_works(sandbox: Runner) -> None:
    outcome = sandbox("""
import bz2, collections, ctypes, dataclasses, datetime, decimal, functools, hashlib, heapq, itertools, json
import lzma, math, random, re, sqlite3, ssl, statistics, string, tempfile, typing, uuid, zlib
from typing import List

@dataclasses.dataclass
class Point:
    x: "int"

assert hashlib.md5(b"a").hexdigest().startswith("0cc1") and Point(1) == Point(1)
assert typing.get_type_hints(Point) == {"x": int} and Point.__module__ == "__main__"
with tempfile.NamedTemporaryFile("w+") as file:
    file.write("stored")
    file.seek(0)
    assert file.read() == "stored"
assert sqlite3.connect(":memory:").execute("select 1").fetchone() == (1,)
""")
    assert outcome.passed, outcome.detail


EARLY_ENDS = {
    "exit": "import sys; sys.exit(0)",
    "_exit": "import os; os._exit(0)",
    "exit in C": "import ctypes; ctypes.CDLL(None)._exit(0)",
    "exit at exit": "import atexit, os; atexit.register(os._exit, 0); raise ValueError",
    "exit in a function": "def double(x):\n    import os\n    os._exit(0)\n" + CHECK,
    "printing": "print('passed')\nraise ValueError",
    "writing everywhere": """
import os
for descriptor in range(3, 64):
    try:
        os.write(descriptor, b"passed" * 3)
    except OSError:
        pass
os._exit(0)
""",
    "the fork passes": "import os\nif os.fork():\n    os._exit(0)",
    "the parent fails": "import os\nif os.fork():\n    raise ValueError",
    "replaced functions": """
import os, traceback
traceback.print_exception = lambda *_: os._exit(0)
raise ValueError
""",
    "copying the token, then failing": """
import os
for source in range(3, 64):
    try:
        os.set_blocking(source, False)
        token = os.read(source, 16)
    except OSError:
        continue
    for target in range(3, 64):
        try:
            os.write(target, token)
        except OSError:
            pass
raise ValueError
""",
    "own signal": "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)",
    "crash": "import ctypes; ctypes.string_at(0)",
}


@pytest.mark.parametrize("program", EARLY_ENDS.values(), ids=EARLY_ENDS.keys())
def test_ending_early_never_passes(sandbox: Runner, program: str) -> None:
    outcome = sandbox(program, processes=2)
    assert not outcome.passed
    assert outcome.reason in ("exit", "exception", "killed")


def test_reasons(sandbox: Runner) -> None:
    assert sandbox("import sys; sys.exit(0)").reason == "exit"
    assert sandbox("import os; os._exit(0)").reason == "exit"
    assert sandbox("x = bytearray(1 << 40)").reason == "memory"
    killed = sandbox("import os; os.kill(os.getpid(), 15)")
    assert (killed.reason, killed.detail) == ("killed", "signal 15 (Terminated)")
    flood = sandbox("import sys\nwhile True: print('x' * 1000, file=sys.stderr)", output=20_000)
    assert (flood.reason, flood.detail.splitlines()[-1]) == ("output", "killed after 20,000 bytes on stderr")


def test_stdout_is_discarded_and_stdin_is_empty(sandbox: Runner) -> None:
    outcome = sandbox("import sys\nfor _ in range(1000): print('x' * 10_000)\nassert sys.stdin.read() == ''")
    assert (outcome.passed, outcome.detail) == (True, "")


def test_detail_is_short_and_cannot_control_a_terminal(sandbox: Runner) -> None:
    outcome = sandbox("import sys\nfor i in range(500): print(i, '\\033[2J\\rx', '✓', file=sys.stderr)")
    lines = outcome.detail.splitlines()
    assert len(lines) == programs.DETAIL_LINES
    assert lines[-1] == "499 \N{REPLACEMENT CHARACTER}[2J\N{REPLACEMENT CHARACTER}x ✓"


def test_the_order_of_sets_is_the_same_in_every_run(sandbox: Runner) -> None:
    program = "import sys\nprint(list({'a', 'b', 'c', 'd', 'e', 'f'}), file=sys.stderr)"
    assert sandbox(program).detail == sandbox(program).detail != ""


def test_many_programs_in_order(capsys: pytest.CaptureFixture[str]) -> None:
    AsThisUser()
    outcomes = run_programs(
        [f"import time; time.sleep({0.2 * (i == 0)}); assert {i} % 3" for i in range(7)],
        Limits(wall=20),
        workers=3,
        label="programs",
    )
    assert [outcome.passed for outcome in outcomes] == [False, True, True, False, True, True, False]
    assert run_programs([], workers=1) == []


def test_wrong_process_count_is_no_isolation(monkeypatch: pytest.MonkeyPatch) -> None:
    """On kernels before 5.14 the limit counts the user's other processes, or nobody's."""
    AsThisUser()
    monkeypatch.setattr(
        programs,
        "run_program",
        lambda *_: Outcome(False, "exception", "SystemError: no limit on processes", 0.1),
    )
    with pytest.raises(ConfigError, match=r"no limit on processes\); Linux 5.14"):
        check_isolation()


def test_hostile_prelude_notices_calls_that_succeed(sandbox: Runner) -> None:
    assert sandbox(HOSTILE + "fails('getpid')").reason == "exception"
    assert sandbox(HOSTILE + "raises(os.getpid)").reason == "exception"
