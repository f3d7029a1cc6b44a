"""The fake vLLM server answers as our decoder does, and each fault has the effect that its name says."""

from __future__ import annotations

import http.client
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import torch
from transformers import LlamaForCausalLM

from llamita.sampling.llama import LlamaSampler, Samples

from ..helpers.fake_vllm import FakeVllm, fake_vllm
from ..helpers.fake_vllm_client import PROMPT, call, complete, request_body
from ..helpers.tiny import save_tiny_model
from ..helpers.waiting import wait_until


@pytest.fixture(scope="module")
def folder(tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model that the servers load."""
    return save_tiny_model(tmp_path_factory.mktemp("served") / "model", tokenizer)


@pytest.fixture(scope="module")
def changed(tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of the same shapes with other weights."""
    return save_tiny_model(tmp_path_factory.mktemp("changed") / "model", tokenizer, seed=1)


@pytest.fixture
def server(folder: Path) -> Iterator[FakeVllm]:
    with fake_vllm(folder, "--served-model-name", "policy") as running:
        yield running


def own_answer(folder: Path, **parameters: Any) -> Samples:
    """The answer of `LlamaSampler` to `PROMPT`, with the parameters of its `sample`."""
    return LlamaSampler(LlamaForCausalLM.from_pretrained(folder)).sample([PROMPT], **parameters)


def has_ended(url: str) -> bool:
    """Whether the server's port is closed."""
    try:
        call(url, "/health")
    except ConnectionError as failure:
        return isinstance(failure, ConnectionRefusedError)
    return False


def test_greedy_answers_are_those_of_the_sampler(server: FakeVllm, folder: Path) -> None:
    choice = complete(server.url, max_tokens=20)["choices"][0]
    expected = own_answer(folder, max_new_tokens=20, temperature=0)
    assert choice["token_ids"] == expected.answer_ids[0]
    assert choice["logprobs"]["token_logprobs"] == pytest.approx(expected.logprobs[0], abs=1e-5)
    assert choice["finish_reason"] == ("stop" if expected.finished[0] else "length")


@pytest.mark.parametrize("decoding", [{"temperature": 1.0}, {"temperature": 0.7, "top_p": 0.8}])
def test_sample_i_is_that_of_seed_plus_i(server: FakeVllm, folder: Path, decoding: dict[str, float]) -> None:
    choices = complete(server.url, n=3, seed=11, **decoding)["choices"]
    alone = [complete(server.url, seed=11 + i, **decoding)["choices"][0] for i in range(3)]
    own = [own_answer(folder, max_new_tokens=8, seed=11 + i, **decoding) for i in range(3)]
    for index, (choice, single, sampled) in enumerate(zip(choices, alone, own, strict=True)):
        assert choice == single | {"index": index}
        assert choice["token_ids"] == sampled.answer_ids[0]
        assert choice["logprobs"]["token_logprobs"] == pytest.approx(sampled.logprobs[0], abs=1e-5)
    assert len({tuple(choice["token_ids"]) for choice in choices}) == 3


def test_requests_without_a_seed_differ(server: FakeVllm) -> None:
    bodies = [complete(server.url, seed=None, temperature=1.0) for _ in range(3)]
    assert len({tuple(body["choices"][0]["token_ids"]) for body in bodies}) == 3


def test_an_answer_ends_with_its_stop_token(server: FakeVllm) -> None:
    free = complete(server.url, max_tokens=8)["choices"][0]
    assert (free["finish_reason"], free["stop_reason"]) == ("length", None)
    third = free["token_ids"][2]
    stopped = complete(server.url, stop_token_ids=[third])["choices"][0]
    end = free["token_ids"].index(third) + 1
    assert stopped["token_ids"] == free["token_ids"][:end]
    assert (stopped["finish_reason"], stopped["stop_reason"]) == ("stop", third)
    ended = complete(server.url, logit_bias={"0": -100, "2": 1000})["choices"][0]
    assert (ended["token_ids"], ended["finish_reason"], ended["stop_reason"]) == ([2], "stop", None)
    assert ended["text"] == ""


def test_the_pad_is_excluded_only_by_the_request(server: FakeVllm) -> None:
    without = complete(server.url, max_tokens=1, logit_bias=None)["choices"][0]["logprobs"]
    biased = complete(server.url, max_tokens=1)["choices"][0]["logprobs"]
    assert biased["token_logprobs"][0] > without["token_logprobs"][0]
    favoured = complete(server.url, max_tokens=3, logit_bias={"0": 1000})["choices"][0]
    assert favoured["token_ids"] == [0, 0, 0]


@pytest.mark.parametrize("parameters", [{"top_k": 1}, {"min_p": 1.0}, {"top_p": 1e-6}])
def test_parameters_that_leave_one_token_are_greedy(server: FakeVllm, parameters: dict[str, float]) -> None:
    greedy = complete(server.url)["choices"][0]
    choice = complete(server.url, temperature=1.0, seed=3, **parameters)["choices"][0]
    assert choice["token_ids"] == greedy["token_ids"]
    assert choice["logprobs"]["token_logprobs"] == pytest.approx([0.0] * 8, abs=1e-6)


def test_a_repetition_penalty_prevents_repetition(server: FakeVllm) -> None:
    ids = complete(server.url, max_tokens=60, repetition_penalty=1e6, logit_bias={"2": -100})
    answer = ids["choices"][0]["token_ids"]
    assert len(answer) == 60
    assert len({*answer, *PROMPT}) == 60 + len(set(PROMPT))


def test_raw_logprobs_are_at_temperature_1_without_bias(folder: Path) -> None:
    with fake_vllm(folder, "--logprobs-mode", "raw_logprobs") as raw, fake_vllm(folder) as processed:
        hot = {"model": None, "temperature": 2.0, "top_p": 0.5, "seed": 1}
        found, other = (complete(server.url, **hot)["choices"][0] for server in (raw, processed))
    assert found["token_ids"] == other["token_ids"]
    model = LlamaForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        logits = model(torch.tensor([PROMPT + found["token_ids"]])).logits[0, len(PROMPT) - 1 : -1]
    expected = logits.log_softmax(-1).gather(1, torch.tensor(found["token_ids"])[:, None])[:, 0]
    assert found["logprobs"]["token_logprobs"] == pytest.approx(expected.tolist(), abs=1e-5)
    assert other["logprobs"]["token_logprobs"] != pytest.approx(expected.tolist(), abs=0.1)


def test_models_and_tokens(server: FakeVllm, folder: Path, tokenizer: Any) -> None:
    assert call(server.url, "/health") == (200, None)
    model = call(server.url, "/v1/models")[1]["data"][0]
    assert (model["id"], model["root"], model["max_model_len"]) == ("policy", str(folder), 128)
    text = "what is the color of bolo"
    plain = {"model": "policy", "prompt": text, "add_special_tokens": False}
    tokens = tokenizer.encode(text, add_special_tokens=False)
    expected = {"count": len(tokens), "max_model_len": 128, "tokens": tokens, "token_strs": None}
    assert call(server.url, "/tokenize", plain) == (200, expected)
    assert call(server.url, "/detokenize", {"model": "policy", "tokens": tokens}) == (200, {"prompt": text})


def test_reload_replaces_the_weights(server: FakeVllm, folder: Path, changed: Path) -> None:
    reload = {"method": "reload_weights", "kwargs": {"weights_path": str(changed)}}
    assert call(server.url, "/collective_rpc", reload) == (200, {"results": [None]})
    assert call(server.url, "/reset_prefix_cache", {}) == (200, {"success": True})
    expected = own_answer(changed, max_new_tokens=8, temperature=0)
    assert complete(server.url)["choices"][0]["token_ids"] == expected.answer_ids[0]
    assert expected.answer_ids != own_answer(folder, max_new_tokens=8, temperature=0).answer_ids
    assert call(server.url, "/v1/models")[1]["data"][0]["root"] == str(folder)


def test_a_reload_from_a_missing_folder_loses_the_weights(server: FakeVllm, tmp_path: Path) -> None:
    reload = {"method": "reload_weights", "kwargs": {"weights_path": str(tmp_path / "missing")}}
    assert call(server.url, "/collective_rpc", reload)[0] == 500
    assert call(server.url, "/health")[0] == 200
    assert call(server.url, "/v1/completions", request_body())[0] == 500
    wait_until(lambda: has_ended(server.url))


def test_a_reload_of_other_shapes_keeps_the_weights_and_prevents_further_reloads(
    server: FakeVllm, tokenizer: Any, changed: Path, tmp_path: Path
) -> None:
    before = complete(server.url)["choices"]
    wide = save_tiny_model(tmp_path / "wide", tokenizer, hidden_size=64)
    for folder in (wide, changed):
        reload = {"method": "reload_weights", "kwargs": {"weights_path": str(folder)}}
        assert call(server.url, "/collective_rpc", reload)[0] == 500
    assert complete(server.url)["choices"] == before


@pytest.mark.parametrize(
    ("changes", "status", "message"),
    [
        ({"model": "other"}, 404, "The model `other` does not exist. Valid aliases: policy."),
        ({"prompt": [5] * 129}, 400, "maximum context length is 128"),
        ({"prompt": [5] * 128}, 400, "max_tokens must be at least 1, got 0"),
        ({"prompt": []}, 400, "at least one prompt"),
        ({"prompt": [5, 9999]}, 400, "Token id 9999 is out of vocabulary"),
        ({"n": 2}, 400, "n must be 1 when using greedy sampling, got 2"),
        ({"n": 0}, 400, "n must be at least 1"),
        ({"top_p": 0}, 400, "top_p must be in"),
        ({"temperature": -1.0}, 400, "temperature must be non-negative"),
        ({"max_tokens": 0}, 400, "max_tokens must be at least 1"),
        ({"logprobs": 21}, 400, "greater than max allowed: 20"),
        ({"logit_bias": {"9999": -100}}, 400, "out-of-vocab"),
    ],
)
def test_wrong_requests(server: FakeVllm, changes: dict[str, Any], status: int, message: str) -> None:
    found, body = call(server.url, "/v1/completions", request_body(**changes))
    assert found == body["error"]["code"] == status
    assert message in body["error"]["message"]
    assert body["error"].keys() == {"message", "type", "param", "code"}


def test_an_answer_ends_at_the_context(server: FakeVllm) -> None:
    choice = complete(server.url, prompt=[1] + [5] * 119, max_tokens=50, logit_bias={"2": -100})
    assert len(choice["choices"][0]["token_ids"]) == 8


def test_missing_routes(folder: Path) -> None:
    with fake_vllm(folder, developer=False) as server:
        for route in ("/collective_rpc", "/reset_prefix_cache", "/none"):
            assert call(server.url, route, {}) == (404, {"detail": "Not Found"})
        assert call(server.url, "/v1/completions") == (405, {"detail": "Method Not Allowed"})


def test_requests_are_recorded(server: FakeVllm) -> None:
    complete(server.url, seed=8)
    assert server.requests == [("/v1/completions", request_body(seed=8))]


def test_parallel_requests_get_their_own_answers(server: FakeVllm) -> None:
    expected = [complete(server.url, seed=i, temperature=1.0)["choices"] for i in range(12)]
    with ThreadPoolExecutor(12) as pool:
        found = pool.map(lambda i: complete(server.url, seed=i, temperature=1.0)["choices"], range(12))
    assert list(found) == expected


class TestFaults:
    """Each fault, in a server in a thread."""

    def test_slow(self, server: FakeVllm) -> None:
        complete(server.url)
        server.faults.slow = 0.5
        start = time.monotonic()
        complete(server.url)
        assert time.monotonic() - start >= 0.5

    def test_hanging(self, server: FakeVllm) -> None:
        server.faults.hang_after = 1
        complete(server.url)
        with pytest.raises(TimeoutError):
            call(server.url, "/v1/completions", request_body(), timeout_s=0.5)
        assert call(server.url, "/health")[0] == 200

    def test_status_500(self, server: FakeVllm) -> None:
        server.faults.fail_after = 2
        statuses = [call(server.url, "/v1/completions", request_body())[0] for _ in range(4)]
        assert statuses == [200, 200, 500, 500]

    def test_death(self, server: FakeVllm) -> None:
        server.faults.die_after = 1
        complete(server.url)
        with pytest.raises((OSError, http.client.RemoteDisconnected)):
            call(server.url, "/v1/completions", request_body())
        assert has_ended(server.url)

    def test_death_closes_connections_that_are_open(self, server: FakeVllm) -> None:
        connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=5)
        for _ in range(2):
            connection.request("GET", "/health")
            assert connection.getresponse().read() == b""
        server.die()
        connection.auto_open = 0  # no second connection
        with pytest.raises(ConnectionError):
            connection.request("GET", "/health")
            connection.getresponse()

    def test_kept_weights(self, server: FakeVllm, changed: Path) -> None:
        before = complete(server.url)["choices"]
        server.faults.keep_weights = True
        reload = {"method": "reload_weights", "kwargs": {"weights_path": str(changed)}}
        assert call(server.url, "/collective_rpc", reload) == (200, {"results": [None]})
        assert complete(server.url)["choices"] == before

    def test_spoilt_token_ids(self, server: FakeVllm) -> None:
        server.faults.spoil, server.faults.spoil_after = "token_ids", 1
        whole, spoilt = (complete(server.url)["choices"][0] for _ in range(2))
        assert spoilt["token_ids"] == whole["token_ids"][:-1]
        assert spoilt["logprobs"] == whole["logprobs"]

    def test_spoilt_choices(self, server: FakeVllm) -> None:
        server.faults.spoil = "choices"
        assert len(complete(server.url, n=3, temperature=1.0)["choices"]) == 2

    def test_spoilt_finish_reason(self, server: FakeVllm) -> None:
        server.faults.spoil = "finish_reason"
        assert complete(server.url)["choices"][0]["finish_reason"] is None

    def test_spoilt_connection(self, server: FakeVllm) -> None:
        server.faults.spoil, server.faults.spoil_after = "connection", 1
        complete(server.url)
        with pytest.raises(http.client.IncompleteRead):
            complete(server.url)
