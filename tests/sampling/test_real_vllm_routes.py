"""The fake vLLM server answers as the real one does: statuses, keys, types, errors, greedy answers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from ..helpers.fake_vllm import fake_vllm
from ..helpers.fake_vllm_client import PROMPT, call, complete, request_body
from ..helpers.real_vllm import VLLM_CPU, real_vllm
from ..helpers.tiny import save_tiny_model

pytestmark = [
    pytest.mark.matrix,
    pytest.mark.skipif(not VLLM_CPU.exists(), reason="no .venv-vllm: run `make vllm-cpu`"),
]

SHAPE = {"hidden_size": 128, "num_attention_heads": 4, "num_key_value_heads": 2}  # heads of 32, as vLLM needs
LENGTH = 96  # --max-model-len
ROUNDING = 2e-5  # of logprobs; the greatest difference seen is 1.2e-5
ARGUMENTS = ("--served-model-name", "policy", "--max-model-len", str(LENGTH), "--max-logprobs", "0")
GREEDY = [
    {"max_tokens": 40},
    {"max_tokens": 40, "prompt": [1]},
    {"max_tokens": 40, "logit_bias": None},
    {"max_tokens": 40, "repetition_penalty": 1.3},
    {"prompt": [1] + [5] * 60, "max_tokens": 60},  # truncated at the context
    {"stop_token_ids": [336, 112]},
    {"logit_bias": {"0": -100, "2": 1000}},  # ends with EOS
    {"logprobs": None, "return_token_ids": None},
]
ONE_TOKEN = [{"top_k": 1}, {"min_p": 1.0}, {"top_p": 1e-6}]
WRONG = [
    {"model": "other"},
    {"prompt": [5] * (LENGTH + 1)},
    {"prompt": [5] * LENGTH},
    {"prompt": []},
    {"prompt": [5, 9999]},
    {"n": 2},
    {"n": 0},
    {"top_p": 0.0},
    {"temperature": -1.0},
    {"max_tokens": 0},
    {"logprobs": 1},
    {"logit_bias": {"9999": -100}},
]
OTHER_ROUTES: list[tuple[str, Any]] = [
    ("/health", None),
    ("/v1/models", None),
    ("/tokenize", {"model": "policy", "prompt": "what is <s> it", "add_special_tokens": False}),
    ("/tokenize", {"model": "policy", "prompt": "what is it"}),
    ("/tokenize", {"model": "other", "prompt": "what is it"}),
    ("/detokenize", {"model": "policy", "tokens": [1, 347, 305, 2]}),
    ("/none", {}),
    ("/v1/completions", None),
    ("/reset_prefix_cache", {}),
    ("/collective_rpc", {}),
    ("/collective_rpc", {"method": "no_such_method"}),
]


class Servers(NamedTuple):
    """URLs of the real and the fake server, and the folders of models that they can load."""

    real: str
    fake: str
    served: Path
    changed: Path


@pytest.fixture(scope="module")
def servers(tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    folder = tmp_path_factory.mktemp("real")
    served = save_tiny_model(folder / "served", tokenizer, **SHAPE)
    changed = save_tiny_model(folder / "changed", tokenizer, seed=1, **SHAPE)
    with (
        fake_vllm(served, *ARGUMENTS) as fake,
        real_vllm(served, folder / "log", *ARGUMENTS, "--logprobs-mode", "processed_logprobs") as real,
    ):
        yield Servers(real, fake.url, served, changed)


def form(value: Any) -> Any:
    """Keys and types of a JSON value; of a list the form of its first item."""
    if isinstance(value, dict):
        return {key: form(item) for key, item in value.items() if key != "top_logprobs"}
    return [form(item) for item in value[:1]] if isinstance(value, list) else type(value).__name__


def assert_same_answer(servers: Servers, **changes: Any) -> None:
    real, fake = complete(servers.real, **changes), complete(servers.fake, **changes)
    assert form(fake) == form(real)
    assert fake["usage"] == real["usage"]
    for found, expected in zip(fake["choices"], real["choices"], strict=True):
        for key in ("index", "text", "token_ids", "prompt_token_ids", "finish_reason", "stop_reason"):
            assert found[key] == expected[key], key
        if expected["logprobs"]:
            values = expected["logprobs"]["token_logprobs"]
            assert found["logprobs"]["token_logprobs"] == pytest.approx(values, abs=ROUNDING)


@pytest.mark.parametrize("changes", GREEDY)
def test_greedy_answers(servers: Servers, changes: dict[str, Any]) -> None:
    assert_same_answer(servers, **changes)


@pytest.mark.parametrize("changes", ONE_TOKEN)
def test_parameters_that_leave_one_token(servers: Servers, changes: dict[str, Any]) -> None:
    assert_same_answer(servers, temperature=1.0, n=2, **changes)


def test_logprobs_of_a_sampled_answer_are_those_of_the_fake(servers: Servers) -> None:
    """The servers draw with other random numbers, so the fake is made to sample what the real one did."""
    decoding = {"temperature": 0.7, "top_p": 0.8, "top_k": 50, "min_p": 0.01, "seed": 3}
    choice = complete(servers.real, **decoding)["choices"][0]
    ids = choice["token_ids"]
    for place, logprob in enumerate(choice["logprobs"]["token_logprobs"]):
        body = {"prompt": PROMPT + ids[:place], "max_tokens": 1, **decoding}
        draws = (complete(servers.fake, **body | {"seed": seed})["choices"][0] for seed in range(2000))
        same = next(draw for draw in draws if draw["token_ids"] == ids[place : place + 1])
        assert same["logprobs"]["token_logprobs"] == pytest.approx([logprob], abs=ROUNDING)


def test_sample_i_is_that_of_seed_plus_i(servers: Servers) -> None:
    for url in (servers.real, servers.fake):
        choices = complete(url, n=3, temperature=1.0, seed=40)["choices"]
        alone = [complete(url, temperature=1.0, seed=40 + i)["choices"][0] for i in range(3)]
        assert [choice["token_ids"] for choice in choices] == [choice["token_ids"] for choice in alone]


@pytest.mark.parametrize("changes", WRONG)
def test_wrong_requests(servers: Servers, changes: dict[str, Any]) -> None:
    real, fake = (
        call(url, "/v1/completions", request_body(**changes)) for url in (servers.real, servers.fake)
    )
    assert real[0] in (400, 404)
    assert fake == real


@pytest.mark.parametrize(("route", "body"), OTHER_ROUTES)
def test_other_routes(servers: Servers, route: str, body: Any) -> None:
    real, fake = (call(url, route, body) for url in (servers.real, servers.fake))
    assert fake[0] == real[0]
    assert form(fake[1]) == form(real[1])
    if route in ("/tokenize", "/detokenize", "/none"):
        assert fake[1] == real[1]


def test_reloaded_weights(servers: Servers) -> None:
    before = complete(servers.real)["choices"][0]["token_ids"]
    for folder in (servers.changed, servers.served):
        reload = {"method": "reload_weights", "kwargs": {"weights_path": str(folder)}}
        real, fake = (call(url, "/collective_rpc", reload) for url in (servers.real, servers.fake))
        assert real == fake == (200, {"results": [None]})
        assert_same_answer(servers, max_tokens=20)
        after = complete(servers.real)["choices"][0]["token_ids"]
        assert (after == before) == (folder == servers.served)


def test_a_reload_from_a_missing_folder_ends_the_server(servers: Servers) -> None:
    """The last test, since neither server survives it."""
    missing = servers.changed / "missing"
    reload = {"method": "reload_weights", "kwargs": {"weights_path": str(missing)}}
    for url in (servers.real, servers.fake):
        status, body = call(url, "/collective_rpc", reload, timeout_s=120)
        assert (status, body["error"]["type"]) == (500, "InternalServerError")
        assert call(url, "/health")[0] == 200
        status, body = call(url, "/v1/completions", request_body())
        assert status == 500
        assert "EngineCore encountered an issue" in body["error"]["message"]
