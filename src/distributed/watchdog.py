"""Ends all ranks when one of them fails, hangs or is killed; every stage on several ranks runs under it.

A thread of each rank reports to the store, once a second, what its rank is doing. Rank 0 looks at all
reports, the others at that of rank 0. The first failure is stored once; every rank sees it and ends.

- An error: the rank that raised it stores it and prints it. A collective that fails because another rank is
  gone raises an error too; such a rank waits a few seconds for the failure that came first.
- A hang: no progress (`processes.advanced`, or another position of the main thread) within the time limit. A
  rank that waits in a collective waits for another one: that one is named.
- A kill: its reports end. If rank 0 was killed, the store is gone as well.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import NoReturn

from ..errors import Interrupted, LlamitaError, RolledBack
from ..processes import ACTIVITY, is_main_process, rank, world_size
from .failures import Failure, find_hang, killed
from .reports import Position, Report, main_thread, main_thread_stack, raised_by_collective
from .store import own_connection

INTERVAL = 1.0  # seconds between two reports of a rank
SILENCE = 45.0  # seconds without a report after which a rank counts as killed; long calls can delay reports
SOON = 4.0  # the same, if another rank has an error that a killed rank would explain
OUTPUT = 2.0  # seconds that the failing rank has to print its message before the others end
FAILURE = "failure"

time_limit = 600.0  # seconds, of the watchdog that is running; `group.setup` gives collectives a little more


@contextmanager
def watched(limit: float) -> Iterator[None]:
    """Context in which a failure of one rank ends all; every rank enters it, before anything else.

    Args:
        limit: seconds without progress after which a rank counts as hung.
    """
    global time_limit
    time_limit = limit
    if world_size() == 1:
        yield
        return
    watchdog = Watchdog(limit)
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _exit)  # from the launcher, when another rank has ended
    try:
        yield
    except (Interrupted, RolledBack):  # raised on all ranks
        watchdog.leave()
        raise
    except (SystemExit, KeyboardInterrupt):
        watchdog.ended_by_another()
        watchdog.leave()
        raise
    except BaseException as error:
        message = str(error) if isinstance(error, LlamitaError) else f"{type(error).__name__}: {error}"
        code = error.exit_code if isinstance(error, LlamitaError) else 1
        watchdog.fail(message, code, of_collective=raised_by_collective(error))
        raise
    watchdog.finish()


def _exit(*_: object) -> NoReturn:
    sys.exit(Interrupted.exit_code)


class Watchdog:
    """Watches this rank and, on rank 0, all others.

    Args:
        limit: seconds without progress after which a rank counts as hung.

    Attributes:
        lost: whether the connection to the store broke, which means that rank 0 has ended.
    """

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._store = own_connection()
        self._lock = threading.Lock()  # the main thread uses the connection too, when it fails or finishes
        self._ending = threading.Lock()  # held for good by the thread that ends the process
        self._watched = [other for other in range(world_size()) if other != rank()]
        if not is_main_process():
            self._watched = [0]
        self._reports: dict[int, Report] = {}
        self._seen: dict[int, float] = dict.fromkeys(self._watched, time.monotonic())
        self._number = 0
        self._position, self._progress, self._advanced = Position("", False, 0), 0, time.monotonic()
        self._finished, self._ended, self.lost = False, threading.Event(), False
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)
        self._thread.start()

    def finish(self) -> None:
        """Stops watching; on rank 0 after all other ranks have finished, since it serves the store."""
        self._finished = True
        while is_main_process() and self._unfinished():  # the thread ends the process if one of them fails
            time.sleep(INTERVAL / 4)
        self._ended.set()
        self._thread.join()
        with suppress(RuntimeError):
            self._report()

    def leave(self) -> None:
        """Stops watching without waiting: all ranks stop for the same reason, for example a signal."""
        self._ended.set()

    def fail(self, message: str, exit_code: int, *, of_collective: bool) -> None:
        """Stores the error of this rank; does not return if another rank failed first.

        The process ends a few seconds later, even if an exit handler waits for another rank.

        Args:
            of_collective: whether a collective raised the error, perhaps because another rank has ended.
        """
        own = Failure(rank(), str(ACTIVITY), message, exit_code)
        self._ignore_sigterm()
        if of_collective and (first := self._explanation(own)):
            self._end(first)
        try:
            first = self._publish(own)
        except RuntimeError:
            self._end(self._main_rank_gone())
        if first != own:
            self._end(first)
        if is_main_process():
            atexit.register(self._thread.join)  # it ends the process, after those that need the store

    def ended_by_another(self) -> None:
        """Ends the process if another rank's failure explains a SIGTERM that this rank got."""
        if first := self._explanation():
            self._end(first)

    @staticmethod
    def _ignore_sigterm() -> None:
        """The launcher sends it when the first rank ends; this rank ends soon, with the right exit code."""
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, signal.SIG_IGN)

    def _explanation(self, own: Failure | None = None) -> Failure | None:
        """The failure that came first, if one is found within a few seconds; `own`: that of this rank."""
        deadline = time.monotonic() + (SOON if is_main_process() else 2 * SOON) + 2 * INTERVAL
        while time.monotonic() < deadline:
            if self.lost:
                return self._main_rank_gone()
            try:
                if failure := self._failure():
                    return failure
            except RuntimeError:
                return self._main_rank_gone()
            if failure := killed(self._unfinished(), SOON, self._reports):
                if own:
                    failure = replace(
                        failure, message=f"{failure.message}; then rank {own.rank}: {own.message}"
                    )
                return self._publish(failure)
            time.sleep(INTERVAL / 4)
        return None

    def _run(self) -> None:
        while not self._ended.wait(INTERVAL):
            try:
                failure = self._turn()
            except RuntimeError:  # of the store
                self.lost = True
                if self._ended.wait(OUTPUT):  # rank 0 has finished, and so has this rank
                    return
                failure = self._main_rank_gone()
            if failure:
                self._end(failure)

    def _turn(self) -> Failure | None:
        own = self._report()
        if failure := self._failure():
            return failure
        self._read_reports()
        failure = killed(self._unfinished(), SILENCE, self._reports)
        if not failure and is_main_process():
            failure = find_hang({0: own, **self._reports}, self._limit)
        return self._publish(failure) if failure else None

    def _report(self) -> Report:
        now, position = time.monotonic(), main_thread()
        if ACTIVITY.polls or (position, ACTIVITY.progress) != (self._position, self._progress):
            self._position, self._progress, self._advanced = position, ACTIVITY.progress, now
        self._number += 1
        own = Report(
            self._number,
            phase=str(ACTIVITY),
            step=ACTIVITY.step or 0,
            idle=now - self._advanced,
            waits=position.waits or ACTIVITY.polls,
            place=position.place,
            finished=self._finished,
        )
        with self._lock:
            self._store.set(f"report/{rank()}", own.encoded())
        return own

    def _read_reports(self) -> None:
        now = time.monotonic()
        with self._lock:
            values = {
                other: self._store.get(f"report/{other}")
                for other in self._watched
                if other in self._reports or self._store.check([f"report/{other}"])
            }
        for other, value in values.items():
            report = Report.decoded(value)
            if other not in self._reports or report.number != self._reports[other].number:
                self._reports[other], self._seen[other] = report, now

    def _unfinished(self) -> Mapping[int, float]:
        """Seconds since the last report of each rank that is watched and has not finished."""
        with suppress(RuntimeError):
            self._read_reports()
        now = time.monotonic()
        return {
            other: now - seen
            for other, seen in self._seen.items()
            if other not in self._reports or not self._reports[other].finished
        }

    def _failure(self) -> Failure | None:
        with self._lock:
            return Failure.decoded(self._store.get(FAILURE)) if self._store.check([FAILURE]) else None

    def _publish(self, failure: Failure) -> Failure:
        """Stores a failure if it is the first; returns the first."""
        with self._lock:
            return Failure.decoded(self._store.compare_set(FAILURE, "", failure.encoded()))

    def _main_rank_gone(self) -> Failure:
        failure = killed({0: SILENCE}, 0, self._reports)
        assert failure is not None
        return failure

    def _end(self, failure: Failure) -> NoReturn:
        """Ends the process with the exit code of the failure, after the message of the failing rank."""
        self._ignore_sigterm()
        self._ending.acquire()
        if failure.is_told_by(rank()):
            print(failure, file=sys.stderr, flush=True)
        if failure.hung and failure.rank == rank():
            print(f"rank {rank()} is at:\n{main_thread_stack()}", file=sys.stderr, flush=True)
        time.sleep(OUTPUT + 2 * INTERVAL if is_main_process() else OUTPUT)
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        os._exit(failure.exit_code)
