"""A vLLM server that the stage starts, as a process in an environment of its own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

from ...errors import ConfigError
from ...settings import Precision
from ..settings import StartedServers
from . import guard

MODULE = "vllm.entrypoints.openai.api_server"  # unlike the command `vllm`, also works in CPU builds
SERVED_NAME = "llamita"  # the same after a restart with another folder
LAST_LINES = 15  # of a log, in error messages
STOP_TIMEOUT = guard.PATIENCE + 10.0  # seconds


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
                env=os.environ | self._environment(),
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
        if gpus is not None:
            own = gpus[self._number * size : (self._number + 1) * size]
            chosen["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, own))
        return {"VLLM_SERVER_DEV_MODE": "1", **chosen, **self._settings.environment}

    def _check_port(self) -> None:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((self._settings.host, self.port))
            except OSError as error:
                raise ConfigError(
                    f"sampler.start: {self._settings.host}:{self.port} cannot be used: {error.strerror}; set "
                    "another port or host"
                ) from None

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
        return "\n".join(f"  | {line}" for line in lines[-LAST_LINES:]) + f"\nlog: {self.log}"

    def stop(self) -> None:
        """Ends the server and waits for its end."""
        if self._process is None:
            return
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None
