"""The servers of a stage: starts or finds them, restarts one that fails, passes weights, stops them."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue

from ...console import say
from ...errors import LlamitaError
from ...limits import allow_open_files
from ...processes import ACTIVITY, advanced, rank
from ...settings import Precision
from ..settings import VllmEngine
from .client import Client, ServedModel, ServerFault
from .process import ServerProcess

END_TIMEOUT = 3.0  # seconds from a broken connection to the end of a process
POLL = 0.5  # seconds between two looks at a server that is not ready
RETURN_TIMEOUT = 60.0  # seconds in which a running server that the stage cannot restart must be ready again


@dataclass
class Server:
    """One server as this rank sees it.

    Attributes:
        client: its requests.
        process: the process, if this rank has started it.
        model: what it serves, since the last start.
        life: number of times it was repaired; a request that fails in an earlier life is sent again.
        repairing: held while it is repaired.
    """

    client: Client
    process: ServerProcess | None = None
    model: ServedModel = field(default=ServedModel("", "", 0))
    life: int = 0
    repairing: threading.Lock = field(default_factory=threading.Lock)

    @property
    def url(self) -> str:
        return self.client.url

    def failure(self, what: str) -> LlamitaError:
        """An error that names the server, what to do, and the last lines of its log."""
        if self.process is None:
            return LlamitaError(
                f"sampler, {ACTIVITY.phase}: server {self.url} {what}; look at its log, restart it, then run "
                "the same command"
            )
        return LlamitaError(
            f"sampler, {ACTIVITY.phase}: server {self.url} {what}; remove the cause, then run the same "
            f"command to resume; its last lines:\n{self.process.last_lines()}"
        )


class Servers:
    """Servers that this rank starts, or that run already.

    Args:
        settings: the settings of the engine.
        urls: addresses of running servers; None: this rank starts those of `settings.start`.
        dtype: precision of the weights of started servers.
        working: folder of their log files.
    """

    def __init__(
        self, settings: VllmEngine, urls: list[str] | None, *, dtype: Precision, working: Path
    ) -> None:
        self._settings = settings
        self._folder: Path | None = None  # whose weights a restarted server loads
        self._closed = threading.Event()
        addresses: list[tuple[str, ServerProcess | None]] = [(url, None) for url in urls or ()]
        if urls is None and settings.start is not None:
            processes = [
                ServerProcess(settings.start, number, dtype=dtype, logs=working)
                for number in range(settings.start.count)
            ]
            addresses = [(process.url, process) for process in processes]
        allow_open_files(settings.parallel * len(addresses), f"sampler.parallel: {settings.parallel}")
        self.members = [
            Server(Client(url, settings.timeout, settings.parallel), process) for url, process in addresses
        ]

    @property
    def urls(self) -> list[str]:
        return [server.url for server in self.members]

    def start(self, folder: Path) -> None:
        """Starts all servers with the model in a folder, unless they run already; waits until all are ready.

        Raises LlamitaError if one ends or is not ready in time.
        """
        self._folder = folder
        started = time.monotonic()
        for server in self.members:
            if server.process is not None:
                server.process.start(folder)
        if self._settings.start is not None:
            say(f"sampler: starting {', '.join(self.urls)}")
        for server in self.members:
            self._wait_for_start(server)
        if any(server.process is not None for server in self.members):
            say(f"sampler: servers are ready after {time.monotonic() - started:.0f} s")
            threading.Thread(target=self._watch, name="vLLM servers", daemon=True).start()

    def _wait_for_start(self, server: Server) -> None:
        if server.process is not None or self._settings.start is None:
            self._wait(server, self._start_timeout)
            return
        try:
            self._wait(server, RETURN_TIMEOUT)
        except LlamitaError as error:
            raise LlamitaError(
                f"{error}. Rank 0 has started it, but rank {rank()} cannot reach it; if they run on "
                "different machines, set sampler.start.host to an address of rank 0's that all can reach"
            ) from None

    @property
    def _start_timeout(self) -> float:
        return RETURN_TIMEOUT if self._settings.start is None else self._settings.start.start_timeout

    def _wait(self, server: Server, seconds: float) -> None:
        """Waits until a server is ready, and asks what it serves."""
        end = time.monotonic() + seconds
        while not server.client.is_healthy():
            if server.process is not None and (code := server.process.exit_code) is not None:
                raise server.failure(f"ended with exit code {code} while it started")
            if time.monotonic() > end or self._closed.is_set():
                raise server.failure(f"was not ready in {seconds:g} s")
            advanced()
            time.sleep(POLL)
        try:
            server.model = server.client.model()
        except ServerFault as fault:
            raise server.failure(str(fault)) from None

    def load(self, folder: Path) -> None:
        """Makes all servers sample from the weights in a folder.

        Raises LlamitaError if one rejects them.
        """
        self._folder = folder
        results: SimpleQueue[BaseException | None] = SimpleQueue()

        def load(server: Server) -> None:
            try:
                self._load(server, folder)
            except BaseException as error:  # raised again in the thread that waits
                results.put(error)
            else:
                results.put(None)

        for server in self.members:
            # a daemon: after Ctrl-C nobody waits for a server that does not respond
            threading.Thread(target=load, args=(server,), daemon=True).start()
        for _ in self.members:
            if (error := results.get()) is not None:
                raise error

    def _load(self, server: Server, folder: Path) -> None:
        with server.repairing:  # a restart that has begun with the weights before must end first
            try:
                server.client.reload(folder)
            except ServerFault as fault:
                if server.process is None:
                    raise server.failure(f"does not load the weights of {folder}: {fault}") from None
                # vLLM still reports that it is healthy, but it answers no request after a reload that failed
                self._restart(server, fault)

    def repair(self, server: Server, fault: ServerFault, life: int) -> None:
        """Makes a server ready again after a fault of its given life; several threads may call it.

        A server that this rank started and that has ended or hangs is restarted, once. Raises LlamitaError
        if it has failed again, or does not become ready.
        """
        with server.repairing:
            if server.life != life:
                return  # another thread has restarted it
            if server.process is None:
                self._wait_for_return(server, fault)
            elif fault.hangs or not server.client.is_healthy():
                self._restart(server, fault)

    def _wait_for_return(self, server: Server, fault: ServerFault) -> None:
        """Waits until a server that others may restart is ready; one that hangs only if rank 0 can."""
        if fault.hangs and not (self._settings.start is not None and self._ends(server)):
            raise server.failure(str(fault))
        try:
            self._wait(server, self._start_timeout)
        except LlamitaError:
            raise server.failure(str(fault)) from None
        server.life += 1  # other requests of the life before failed with it, and are only sent again

    def _ends(self, server: Server) -> bool:
        """Waits until rank 0 stops a server that hangs, which it notices if it has requests to it itself."""
        end = time.monotonic() + self._settings.timeout + RETURN_TIMEOUT
        while server.client.is_healthy():
            if time.monotonic() > end or self._closed.is_set():
                return False
            advanced()
            time.sleep(POLL)
        return True

    def _restart(self, server: Server, fault: ServerFault) -> None:
        assert server.process is not None
        assert self._folder is not None
        if self._closed.is_set():
            raise server.failure(str(fault))
        # its connections break before the process has ended
        code = server.process.exit_code if fault.hangs else server.process.ends_within(END_TIMEOUT)
        what = str(fault) if code is None else f"ended with exit code {code}"
        if server.life > 0:
            raise server.failure(f"failed again after its restart: {what}")
        say(f"sampler: server {server.url} {what}; restarting it, once; its last lines:")
        say(server.process.last_lines())
        server.process.stop()
        server.process.start(self._folder)
        self._wait(server, self._start_timeout)
        server.life += 1
        say(f"sampler: server {server.url} is ready again")

    def _watch(self) -> None:
        """Restarts servers that end, also while this rank waits for others that sample from them."""
        watched = list(self.members)
        while not self._closed.wait(POLL):
            for server in list(watched):
                if server.process is not None and server.process.exit_code is not None:
                    try:
                        self.repair(server, ServerFault("ended"), server.life)
                    except LlamitaError:
                        watched.remove(server)  # the next request to it raises the error

    def close(self) -> None:
        """Stops the servers that this rank has started."""
        self._closed.set()
        for server in self.members:
            server.client.close()
            if server.process is not None:
                server.process.end()  # a thread that waits for its response fails, and no longer repairs it
        for server in self.members:
            if server.process is not None:
                with server.repairing:
                    server.process.stop()
