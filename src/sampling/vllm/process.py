"""A vLLM server that the stage starts, as a process in an environment of its own."""

from __future__ import annotations

import errno
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from ...errors import ConfigError
from ...processes import advanced
from ...settings import Precision
from ..settings import StartedServers
from . import guard

MODULE = "vllm.entrypoints.openai.api_server"  # unlike the command `vllm`, also works in CPU builds
SERVED_NAME = "llamita"  # the same after a restart with another folder
LAST_LINES = 15  # of a log, in error messages
RECENT_LINES = 300  # of a log, in which error messages are searched
MAX_ERRORS = 5
STOP_TIMEOUT = guard.PATIENCE + 10.0  # seconds
PORT_TIMEOUT = guard.PATIENCE + 10.0  # seconds; a run that was killed leaves a server for a moment
# Variables of the trainer's launcher; with those of torchrun, a server would look for a store of the trainer.
LAUNCHERS = re.compile(
    r"(LOCAL_|GROUP_|ROLE_|CROSS_)?(RANK|WORLD_SIZE|SIZE)|ROLE_NAME|MASTER_(ADDR|PORT)|TORCHELASTIC_.*"
)


class ServerProcess:
    """One server; `start` may be called again after `stop`.

    Args:
        settings: settings of all servers that are started.
        number: number of this server, from 0.
        dtype: precision of its weights.
        logs: folder of its log file, which is appended to.

    Raises:
        ConfigError: `python` does not exist, or the port is in use.
    """

    def __init__(self, settings: StartedServers, number: int, *, dtype: Precision, logs: Path) -> None:
        self._settings, self._number, self._dtype = settings, number, dtype
        self.port = settings.port + number
        self.url = f"http://{settings.host}:{self.port}"
        self.log = logs / f"server-{self.port}.log"
        self._process: subprocess.Popen[bytes] | None = None
        if not Path(settings.python).is_file():
            raise ConfigError(
                f"sampler.start.python: no such file: {settings.python}; expected the Python of an "
                "environment that has vLLM"
            )

    def start(self, model: Path) -> None:
        """Starts to serve the model in a folder; it is not ready yet."""
        self._check_port()
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, guard.__file__, *self.command(model)],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._environment(),
                start_new_session=True,  # a signal to the stage's process group must not end the guard
            )

    def command(self, model: Path) -> list[str]:
        """The command that serves a model."""
        settings = self._settings
        return [
            settings.python,
            "-m",
            MODULE,
            f"--model={model}",
            f"--served-model-name={SERVED_NAME}",
            f"--host={settings.host}",
            f"--port={self.port}",
            f"--dtype={self._dtype}",
            f"--tensor-parallel-size={settings.tensor_parallel_size}",
            "--logprobs-mode=processed_logprobs",
            "--generation-config=vllm",
            *settings.arguments,
        ]

    def _environment(self) -> dict[str, str]:
        size, gpus = self._settings.tensor_parallel_size, self._settings.gpus
        chosen = {}
        if gpus is None and self._settings.count > 1:
            gpus = list(range(self._settings.count * size))
        if gpus is not None:
            own = gpus[self._number * size : (self._number + 1) * size]
            chosen["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, own))
        inherited = {name: value for name, value in os.environ.items() if not LAUNCHERS.fullmatch(name)}
        return {**inherited, "VLLM_SERVER_DEV_MODE": "1", **chosen, **self._settings.environment}

    def _check_port(self) -> None:
        end = time.monotonic() + PORT_TIMEOUT
        while (problem := self._port_problem()) == errno.EADDRINUSE and time.monotonic() < end:
            advanced()
            time.sleep(0.5)
        if problem is not None:
            raise ConfigError(
                f"sampler.start: {self._settings.host}:{self.port} cannot be used: {os.strerror(problem)}; "
                "end what uses it, such as another run, or set another port or host"
            )

    def _port_problem(self) -> int | None:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((self._settings.host, self.port))
            except socket.gaierror:
                return errno.EADDRNOTAVAIL
            except OSError as error:
                return error.errno
        return None

    @property
    def exit_code(self) -> int | None:
        """Exit code of a server that has ended; None while it runs."""
        return None if self._process is None else self._process.poll()

    def ends_within(self, seconds: float) -> int | None:
        """Exit code of a server that ends within some seconds; None if it still runs then."""
        end = time.monotonic() + seconds
        while (code := self.exit_code) is None and time.monotonic() < end:
            time.sleep(0.05)
        return code

    def last_lines(self) -> str:
        """The last lines of the log, for an error message."""
        try:
            lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            lines = []
        shown = [*_errors(lines[-RECENT_LINES:-LAST_LINES]), *lines[-LAST_LINES:]]
        return "\n".join(f"  | {line}" for line in shown) + f"\nlog: {self.log}"

    def end(self) -> None:
        """Makes the server end, without waiting for it."""
        if (process := self._process) is not None:
            assert process.stdin is not None
            process.stdin.close()

    def stop(self) -> None:
        """Ends the server and waits for its end."""
        if (process := self._process) is None:
            return
        self.end()
        try:
            process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self._process = None


def _errors(lines: Sequence[str]) -> list[str]:
    """The first lines with an error message: the end of vLLM's log only says that its engine has died."""
    return [line for line in lines if re.search(r"\w(Error|Exception): ", line)][:MAX_ERRORS]
