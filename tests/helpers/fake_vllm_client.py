"""Plain HTTP requests to a vLLM server, real or fake, for tests of the server itself."""

from __future__ import annotations

import http.client
import json
import socket
from typing import Any
from urllib.parse import urlsplit

PROMPT = [1, 5, 9, 30, 17]


def free_port() -> int:
    """A port that no process listens at."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def request_body(**changes: Any) -> dict[str, Any]:
    """The body of a greedy request of `/v1/completions` for the model `policy`, with changes."""
    body = {
        "model": "policy",
        "prompt": PROMPT,
        "n": 1,
        "max_tokens": 8,
        "temperature": 0.0,
        "top_p": 1.0,
        "top_k": 0,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "seed": 5,
        "logprobs": 0,
        "return_token_ids": True,
        "logit_bias": {"0": -100},
        "stop_token_ids": [2],
        "skip_special_tokens": False,
    }
    return body | changes


def call(url: str, route: str, body: Any = None, *, timeout_s: float = 60) -> tuple[int, Any]:
    """Sends a GET request, or a POST request if there is a body; returns status and JSON body.

    An empty body is None.
    """
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=timeout_s)
    content = None if body is None else json.dumps(body)
    try:
        connection.request("GET" if body is None else "POST", route, content, _JSON)
        response = connection.getresponse()
        raw = response.read()
    finally:
        connection.close()
    return response.status, json.loads(raw) if raw else None


def complete(url: str, **changes: Any) -> dict[str, Any]:
    """The body of the answer to `request_body(**changes)`, which must have status 200."""
    status, body = call(url, "/v1/completions", request_body(**changes))
    assert status == 200, body
    return body


_JSON = {"Content-Type": "application/json"}
