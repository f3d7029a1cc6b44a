"""The terminal or pipe that a run was started from: it may be gone long before the run has ended."""

from __future__ import annotations

import errno
import io
import os
import select
import signal
import sys
from typing import Any


def ending_signals() -> list[signal.Signals]:
    """SIGTERM, and the SIGHUP of a terminal that is closed, unless it is ignored, as under `nohup`."""
    ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return [signal.SIGTERM] if ignored else [signal.SIGTERM, signal.SIGHUP]


def print_whatever_happens() -> None:
    """Makes the standard streams such that printing never ends a run.

    Whoever read them may be gone (`| head`, a closed terminal), the disk of a log full, or a character not in
    the terminal's encoding: it is written as an escape then. Child processes that inherit a stream find
    `/dev/null` in place of a pipe that nobody reads.
    """
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        try:
            os.fstat(descriptor)
        except OSError:  # closed from the start: otherwise the next file to be opened would take its place
            _silence(descriptor)
        encoding = getattr(getattr(sys, name), "encoding", None) or "utf-8"
        buffer = io.BufferedWriter(_Lasting(descriptor, "w", closefd=False))
        stream = io.TextIOWrapper(buffer, encoding=encoding, errors="backslashreplace", line_buffering=True)
        setattr(sys, name, stream)


class _Lasting(io.FileIO):
    """A file that loses what it can't write instead of raising."""

    def write(self, data: Any) -> int:
        try:
            while (
                written := super().write(data)
            ) is None:  # a terminal that another program left non-blocking
                select.select([], [self], [])
        except OSError as error:
            if error.errno in (errno.EPIPE, errno.EIO):  # nobody will read it any more
                _silence(self.fileno())
            return memoryview(data).nbytes
        return written


def _silence(descriptor: int) -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    if nowhere != descriptor:
        os.dup2(nowhere, descriptor)
        os.close(nowhere)
