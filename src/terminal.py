"""Output streams and signals of a run that outlives the terminal or pipe it was started from."""

from __future__ import annotations

import errno
import io
import os
import select
import signal
import sys
from typing import Any

from .errors import Interrupted


def ending_signals() -> list[signal.Signals]:
    """Signals that end a run: SIGTERM, and SIGHUP of a closed terminal unless it is ignored (`nohup`)."""
    ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return [signal.SIGTERM] if ignored else [signal.SIGTERM, signal.SIGHUP]


def exit_on_signals() -> None:
    """Makes the signals that end a run raise SystemExit, so that launched ranks are stopped, too."""
    for number in ending_signals():
        signal.signal(number, _exit)


def _exit(*_: object) -> None:
    for number in ending_signals():  # a shell and its terminal both send SIGHUP
        signal.signal(number, signal.SIG_IGN)
    sys.exit(Interrupted.exit_code)


def print_whatever_happens() -> None:
    """Replaces stdout and stderr by streams that never raise, so that printing cannot end a run.

    The reader may be gone (`| head`, a closed terminal) or the disk of a log full. Characters that the
    terminal's encoding lacks are written as escapes. A broken pipe is replaced by `/dev/null`, also for child
    processes that inherit the stream.
    """
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        try:
            os.fstat(descriptor)
        except OSError:  # already closed: the next file to be opened would get its descriptor
            _silence(descriptor)
        encoding = getattr(getattr(sys, name), "encoding", None) or "utf-8"
        buffer = io.BufferedWriter(_NeverRaisingFile(descriptor, "w", closefd=False))
        stream = io.TextIOWrapper(buffer, encoding=encoding, errors="backslashreplace", line_buffering=True)
        setattr(sys, name, stream)


class _NeverRaisingFile(io.FileIO):
    """A file that drops output that it cannot write instead of raising."""

    def write(self, data: Any) -> int:
        try:
            # None: the terminal is non-blocking, as another program left it
            while (written := super().write(data)) is None:
                select.select([], [self], [])
        except OSError as error:
            if error.errno in (errno.EPIPE, errno.EIO):  # the reader is gone
                _silence(self.fileno())
            return memoryview(data).nbytes
        return written


def _silence(descriptor: int) -> None:
    null = os.open(os.devnull, os.O_WRONLY)
    if null != descriptor:
        os.dup2(null, descriptor)
        os.close(null)
