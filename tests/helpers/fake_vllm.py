"""A small HTTP server with vLLM's routes over our own decoder, and with faults that tests set.

It accepts the command line of `python -m vllm.entrypoints.openai.api_server`. `fake_vllm` runs it in a
thread, fake_vllm_process.py in its own process.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import socket
import threading
import traceback
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from .fake_vllm_errors import Response, error, internal_error
from .fake_vllm_faults import Faults
from .fake_vllm_model import FakeModel
from .fake_vllm_routes import COMPLETIONS, RELOADED, RPC, Route, Routes


class FakeVllm(ThreadingHTTPServer):
    """A server that has loaded its model and listens.

    Attributes:
        faults: tests change them at any time.
        requests: route and JSON body of every POST request, in the order of their arrival.
        url: address without a final slash.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, options: argparse.Namespace, faults: Faults, *, developer: bool) -> None:
        self.faults = faults
        self.requests: list[tuple[str, dict[str, Any]]] = []
        model = FakeModel(
            options.model,
            options.dtype,
            options.max_model_len,
            raw_logprobs=options.logprobs_mode == "raw_logprobs",
        )
        self.routes = Routes(model, options, developer=developer)
        self.stopped = threading.Event()
        self._completions = 0
        self._lock = threading.Lock()
        self._connections: set[socket.socket] = set()
        super().__init__((options.host, options.port), _Handler)
        self.url = f"http://{options.host}:{self.server_address[1]}"

    def count_completion(self) -> int:
        """The number of this request of `/v1/completions`, from 1."""
        with self._lock:
            self._completions += 1
            return self._completions

    def die(self) -> None:
        """Ends as a process that crashes: the port and all connections are closed."""
        self.stop()

    def stop(self) -> None:
        """Closes the port and all connections, also those that a hanging request keeps open."""
        self.stopped.set()
        self.shutdown()
        self.server_close()
        with self._lock:
            connections = list(self._connections)
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def process_request(self, request: Any, client_address: Any) -> None:
        """See the base class; remembers the connection."""
        with self._lock:
            self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """See the base class; forgets the connection."""
        with self._lock:
            self._connections.discard(request)
        super().shutdown_request(request)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # otherwise each answer on an open connection waits 40 ms
    server: FakeVllm

    def log_message(self, format: str, *args: Any) -> None:
        """Logs nothing."""

    def do_GET(self) -> None:
        self._answer(self.server.routes.get, self.server.routes.post)

    def do_POST(self) -> None:
        self._answer(self.server.routes.post, self.server.routes.get)

    def _answer(self, routes: Mapping[str, Any], others: Mapping[str, Any]) -> None:
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.path not in routes:
            method = self.path in others
            missing = Response(405, "Method Not Allowed") if method else Response(404, "Not Found")
            return self._send(Response(missing.status, {"detail": missing.body}))
        try:
            body = json.loads(raw) if raw else {}
        except json.JSONDecodeError as failure:
            return self._send(error(HTTPStatus.BAD_REQUEST, f"1 validation error: {failure}"))
        if self.command == "POST":
            self.server.requests.append((self.path, body))
        if self.path == COMPLETIONS:
            return self._complete(body)
        if self.path == RPC and self.server.faults.keep_weights:
            return self._send(RELOADED)
        return self._send(self._call(routes[self.path], body))

    def _call(self, route: Route, body: dict[str, Any]) -> Response:
        """The response of a route; an error that vLLM does not have is one of the fake, shown to the test."""
        try:
            return route(body)
        except Exception as failure:
            traceback.print_exc()
            return internal_error(f"the fake server failed: {failure!r}")

    def _complete(self, body: dict[str, Any]) -> None:
        number, faults = self.server.count_completion(), self.server.faults
        self.server.stopped.wait(faults.slow)
        if faults.die_after is not None and number > faults.die_after:
            return self.server.die()
        if faults.hang_after is not None and number > faults.hang_after:
            self.server.stopped.wait()
            self.close_connection = True
            return None
        if faults.fail_after is not None and number > faults.fail_after:
            return self._send(internal_error("a fault of the fake server"))
        broken = self.server.routes.broken
        response = self._call(self.server.routes.post[COMPLETIONS], body)
        if faults.spoil and number > faults.spoil_after and response.status == 200:
            _spoil(response.body, faults)
        self._send(response, whole=faults.spoil != "connection" or number <= faults.spoil_after)
        if broken:
            self.server.die()
        return None

    def _send(self, response: Response, whole: bool = True) -> None:
        content = b"" if response.body is None else json.dumps(response.body).encode()
        self.send_response(response.status)
        if content:
            self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content if whole else content[: len(content) // 2])
        self.close_connection |= not whole


def _spoil(body: dict[str, Any], faults: Faults) -> None:
    """Removes a part of an answer in place."""
    if faults.spoil == "token_ids":
        for choice in body["choices"]:
            choice["token_ids"] = choice["token_ids"][:-1]
    elif faults.spoil == "choices":
        del body["choices"][-1]
    elif faults.spoil == "finish_reason":
        for choice in body["choices"]:
            choice["finish_reason"] = None


@contextlib.contextmanager
def fake_vllm(
    folder: Path, *arguments: str, faults: Faults | None = None, developer: bool = True
) -> Iterator[FakeVllm]:
    """Runs a server in a thread of this process, at a free port.

    Args:
        folder: a Hugging Face folder of a Llama.
        arguments: of vLLM's command line.
        developer: whether `VLLM_SERVER_DEV_MODE` counts as set.
    """
    processed = ["--logprobs-mode", "processed_logprobs"]
    options = parse_options(["--model", str(folder), "--port", "0", *processed, *arguments])
    server = FakeVllm(options, faults or Faults(), developer=developer)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.stop()
        thread.join()


def parse_options(arguments: list[str]) -> argparse.Namespace:
    """Reads vLLM's command line; arguments without a meaning for the fake are accepted and ignored."""
    parser = argparse.ArgumentParser(prog="vllm.entrypoints.openai.api_server", allow_abbrev=False)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--served-model-name")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--max-model-len", type=int)
    parser.add_argument("--max-logprobs", type=int, default=20)
    parser.add_argument("--logprobs-mode", default="raw_logprobs")
    for ignored in ("tensor-parallel-size", "generation-config", "seed", "gpu-memory-utilization"):
        parser.add_argument(f"--{ignored}")
    parser.add_argument("--enforce-eager", action="store_true")
    return parser.parse_args(arguments)
