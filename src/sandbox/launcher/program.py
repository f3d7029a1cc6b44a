"""The process in which the program runs."""

from __future__ import annotations

import itertools
import linecache
import os
import sys
import traceback
import types
from typing import NoReturn

TOKEN_BYTES = 16
NAME = "program.py"
EXCEPTION, MEMORY, EXIT = 1, 3, 4
"""Exit codes: the program raised an exception, had no memory left, or called sys.exit. All have failed."""
_ALL_DESCRIPTORS = 1 << 16


def run_to_its_end(source: str, *, token: int, verdict: int, messages: int) -> NoReturn:
    """Runs the program; if its last line was reached, copies the token to the verdict. Ends the process.

    The token is read only after the program has run. Printing, or ending the process early with any exit
    code, therefore never counts as passed.

    Args:
        token: descriptor to read `TOKEN_BYTES` from.
        verdict: descriptor to write them to.
        messages: descriptor that becomes stderr.
    """
    # The program may replace functions of modules, and a child that it forks may get here, too.
    process, getpid, read, write, end = os.getpid(), os.getpid, os.read, os.write, os._exit
    code = EXCEPTION
    try:
        _keep_only(token, verdict, messages)
        code = _run(source)
        if code == 0 and getpid() == process:
            write(verdict, read(token, TOKEN_BYTES))
    finally:
        end(code)


def _keep_only(token: int, verdict: int, messages: int) -> None:
    """Closes all other descriptors; there is no input, and output is discarded."""
    nothing = os.open("/dev/null", os.O_RDWR)
    for place, descriptor in enumerate((nothing, nothing, messages)):
        os.dup2(descriptor, place)
    kept = sorted((2, token, verdict))
    for below, above in itertools.pairwise([*kept, _ALL_DESCRIPTORS]):
        os.closerange(below + 1, above)


def _run(source: str) -> int:
    """Runs the program as module `__main__`; returns 0, or the exit code of a failure after a traceback."""
    os.environ.clear()
    sys.argv = [NAME]
    sys.path = [path for path in sys.path if os.path.isdir(path)]
    main = sys.modules["__main__"] = types.ModuleType("__main__")
    linecache.cache[NAME] = (len(source), None, source.splitlines(keepends=True), NAME)
    try:
        # without this module's own `from __future__ import annotations`, which would leave annotations unread
        exec(compile(source, NAME, "exec", dont_inherit=True), main.__dict__)
    except BaseException as error:
        _print(error)
        return (
            EXIT if isinstance(error, SystemExit) else MEMORY if isinstance(error, MemoryError) else EXCEPTION
        )
    return 0


def _print(error: BaseException) -> None:
    """Prints the traceback without the line of this module."""
    below = error.__traceback__.tb_next if error.__traceback__ else None
    traceback.print_exception(type(error), error, below)
