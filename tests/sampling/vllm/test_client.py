"""What the client makes of responses that the fake server does not send, and of its surroundings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx2
import pytest

from llamita.errors import ConfigError
from llamita.sampling.decoding import Decoding
from llamita.sampling.vllm.client import Client, Request, ServerFault

from ...helpers.fake_vllm import fake_vllm

REQUEST = Request([1, 5], 2, 0, 4, Decoding())


def choice(index: int, ids: list[int], reason: str) -> dict[str, Any]:
    return {
        "index": index,
        "token_ids": ids,
        "logprobs": {"token_logprobs": [-1.0] * len(ids)},
        "finish_reason": reason,
    }


@pytest.fixture
def client() -> Client:
    return Client("http://localhost:1", 1.0, 1)


def test_keys_of_other_weights_that_a_server_keeps_are_a_fault(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    respond(client, monkeypatch, 200, {"success": False})
    with pytest.raises(ServerFault, match="keeps keys that other weights have computed"):
        client.reload(Path("weights"))
    respond(client, monkeypatch, 200, {"success": True})
    client.reload(Path("weights"))


def respond(client: Client, monkeypatch: pytest.MonkeyPatch, status: int, body: Any) -> None:
    response = httpx2.Response(status, json=body)
    monkeypatch.setattr(client._http, "request", lambda *_, **__: response)


def test_answers_are_in_the_order_of_their_seeds(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    choices = [choice(1, [7, 2], "stop"), choice(0, [3, 4, 5, 6], "length")]
    respond(client, monkeypatch, 200, {"choices": choices})
    answers = client.complete("m", REQUEST, eos=[2])
    assert [answer.ids for answer in answers] == [[3, 4, 5, 6], [7, 2]]
    assert [answer.finished for answer in answers] == [False, True]


@pytest.mark.parametrize(
    "wrong",
    [
        choice(1, [3, 4, 5], "length"),  # truncated at the server's context
        choice(1, [3, 4], "stop"),  # no EOS
        choice(1, [3, 4, 5, 6, 2], "stop"),  # longer than requested
        choice(1, [3, 4], "abort"),
        choice(1, [], "stop"),
        choice(1, [3, 2], "stop") | {"logprobs": {"token_logprobs": [-1.0, None]}},
        choice(1, [3, 2], "stop") | {"logprobs": None},
    ],
)
def test_an_incomplete_answer_is_a_fault(
    wrong: dict[str, Any], client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    respond(client, monkeypatch, 200, {"choices": [choice(0, [7, 2], "stop"), wrong]})
    with pytest.raises(ServerFault, match="incomplete answers"):
        client.complete("m", REQUEST, eos=[2])


@pytest.mark.parametrize("status", [401, 403])
def test_a_wrong_api_key(status: int, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    respond(client, monkeypatch, status, {"error": "Unauthorized"})
    with pytest.raises(ConfigError, match=r"localhost:1 rejects the API key; set .* VLLM_API_KEY"):
        client.model()


def test_the_api_key_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_API_KEY", "secret")
    assert Client("http://localhost:1", 1.0, 1)._http.headers["Authorization"] == "Bearer secret"


def test_no_proxy_is_used(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    with fake_vllm(folder) as server:
        assert Client(server.url, 5.0, 1).is_healthy()
