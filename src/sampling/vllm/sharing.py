"""Shares requests out among servers: each takes the next one as soon as it has finished another."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue

from ...processes import advanced
from .client import Answer, Client, Request, ServedModel, ServerFault
from .servers import Server, Servers

Complete = Callable[[Client, ServedModel, Request], list[Answer]]
WAIT = 5.0  # seconds after which a rank that waits for answers reports that it is not hung


def share_out(
    servers: Servers,
    requests: Sequence[Request],
    complete: Complete,
    *,
    parallel: int,
    advance: Callable[[float], None],
) -> list[list[Answer]]:
    """The answers to each request, whichever server has sampled them.

    A request whose server fails is sent again, to any server, once.

    Args:
        complete: sends one request.
        parallel: maximum number of parallel requests to a server.
        advance: called with the number of answers that have ended since the last call.

    Raises:
        LlamitaError: a server fails and cannot be repaired, or rejects a request.
    """
    work = _Work(servers, requests, complete)
    threads = min(parallel, -(-len(requests) // len(servers.members)))
    for server in servers.members:
        for _ in range(threads):
            # a daemon: after an error, or Ctrl-C, nobody waits for the responses of the others
            threading.Thread(target=work.take, args=(server,), daemon=True).start()
    answers: list[list[Answer]] = [[] for _ in requests]
    try:
        for _ in requests:
            result = work.next_result()
            if isinstance(result, BaseException):
                raise result
            place, answers[place] = result
            advance(len(answers[place]))
    finally:
        work.stopping.set()
    return answers


class _Work:
    """Requests that are left.

    Attributes:
        finished: places of requests with their answers, or the error that ends the work.
        stopping: set when no thread should take another request.
    """

    def __init__(self, servers: Servers, requests: Sequence[Request], complete: Complete) -> None:
        self._servers, self._requests, self._complete = servers, requests, complete
        # the longest prompts first: one that begins last would keep all servers waiting
        self._left = deque(sorted(range(len(requests)), key=lambda place: -len(requests[place].prompt)))
        self._failed: set[int] = set()
        self._lock = threading.Lock()
        self.finished: SimpleQueue[tuple[int, list[Answer]] | BaseException] = SimpleQueue()
        self.stopping = threading.Event()

    def take(self, server: Server) -> None:
        """Sends requests to a server until none is left."""
        try:
            while not self.stopping.is_set() and (place := self._next()) is not None:
                life = server.life
                try:
                    answers = self._complete(server.client, server.model, self._requests[place])
                except ServerFault as fault:
                    self._count_failure(place, server, fault)
                    self._servers.repair(server, fault, life)
                    # not before: another thread of this server would send it to the server that has ended
                    self._left.appendleft(place)
                else:
                    self.finished.put((place, answers))
        except BaseException as error:  # raised again in the thread that waits for the answers
            self.finished.put(error)

    def next_result(self) -> tuple[int, list[Answer]] | BaseException:
        """Waits for the next of `finished`; each request and each restart has a time limit of its own."""
        while True:
            try:
                return self.finished.get(timeout=WAIT)
            except Empty:
                advanced()

    def _next(self) -> int | None:
        try:
            return self._left.popleft()
        except IndexError:
            return None

    def _count_failure(self, place: int, server: Server, fault: ServerFault) -> None:
        """Raises LlamitaError if a request has failed before."""
        with self._lock:
            if place in self._failed:
                raise server.failure(f"{fault}; a request has failed twice")
            self._failed.add(place)
