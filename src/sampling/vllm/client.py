"""HTTP requests to one vLLM server, with its routes for generation and for reinforcement learning."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

from ...errors import ConfigError, LlamitaError
from ..decoding import Decoding

API_KEY = "VLLM_API_KEY"  # environment variable that vLLM reads, too
CONNECT_TIMEOUT = 10.0  # seconds


class ServerFault(Exception):
    """A server failed in a way that a restart or a second try may repair; the message is the problem.

    Attributes:
        hangs: whether the server did not respond in time.
    """

    def __init__(self, problem: str, *, hangs: bool = False) -> None:
        super().__init__(problem)
        self.hangs = hangs


@dataclass(frozen=True)
class Request:
    """Answers to sample to one prompt.

    Attributes:
        prompt: token ids.
        count: number of answers.
        seed: seed of the first answer; the next one has the next seed.
        max_new_tokens: maximum length of an answer, EOS included.
    """

    prompt: list[int]
    count: int
    seed: int
    max_new_tokens: int
    decoding: Decoding


@dataclass(frozen=True)
class Answer:
    """Token ids of an answer, EOS included if it is finished, and their log-probabilities."""

    ids: list[int]
    logprobs: list[float]
    finished: bool


@dataclass(frozen=True)
class ServedModel:
    """What a server says about its model: name, folder, and maximum tokens of a prompt and its answer."""

    name: str
    folder: str
    context: int


class Client:
    """Requests to the server at `url`; every call has a time limit.

    Args:
        timeout: seconds after which a request without a response has failed.
        parallel: maximum number of parallel requests.

    All methods raise:
        ServerFault: no connection, no response in time, a status of 500 or more, an invalid response.
        ConfigError: the server rejects the API key.
        LlamitaError: the server rejects a request for another reason.
    """

    def __init__(self, url: str, timeout: float, parallel: int) -> None:
        self.url, self.timeout = url, timeout
        headers = {"Authorization": f"Bearer {key}"} if (key := os.environ.get(API_KEY)) else {}
        self._http = httpx2.Client(
            base_url=url,
            headers=headers,
            timeout=httpx2.Timeout(timeout, connect=min(timeout, CONNECT_TIMEOUT)),
            limits=httpx2.Limits(max_connections=parallel + 1),
            trust_env=False,  # a cluster's proxy does not know its nodes
        )

    def close(self) -> None:
        """Ends all connections; later requests fail."""
        self._http.close()

    def is_healthy(self) -> bool:
        """Whether the server is ready."""
        try:
            return self._http.get("/health", timeout=CONNECT_TIMEOUT).status_code == httpx2.codes.OK
        except (httpx2.HTTPError, RuntimeError):  # RuntimeError: closed by another thread
            return False

    def model(self) -> ServedModel:
        """The model that the server serves: the first one, if it also serves adapters."""
        data = self._call("GET", "/v1/models")
        try:
            first = data["data"][0]
            return ServedModel(first["id"], str(first["root"]), int(first["max_model_len"]))
        except (KeyError, IndexError, TypeError, ValueError):
            raise self._foreign("/v1/models") from None

    def tokenize(self, model: str, text: str) -> list[int]:
        """Token ids of a text, without special tokens around it."""
        body = {"model": model, "prompt": text, "add_special_tokens": False}
        data = self._call("POST", "/tokenize", body)
        try:
            return [int(token) for token in data["tokens"]]
        except (KeyError, TypeError, ValueError):
            raise self._foreign("/tokenize") from None

    def complete(
        self,
        model: str,
        request: Request,
        *,
        eos: list[int],
        bias: Mapping[int, float] | None = None,
    ) -> list[Answer]:
        """Samples the answers of a request.

        Args:
            eos: ids that end an answer.
            bias: what is added to the logits of some tokens, between -100 and 100.
        """
        body: dict[str, Any] = {
            "model": model,
            "prompt": request.prompt,
            "n": request.count,
            "max_tokens": request.max_new_tokens,
            "temperature": request.decoding.temperature,
            "top_p": request.decoding.top_p,
            "seed": request.seed,
            "stop_token_ids": eos,
            "logprobs": 0,
            "return_token_ids": True,
            # the folder's generation config would decide otherwise
            "top_k": 0,
            "min_p": 0.0,
            "repetition_penalty": 1.0,
        }
        if bias:
            body["logit_bias"] = {str(token): value for token, value in bias.items()}
        return self._answers(self._call("POST", "/v1/completions", body), request, eos)

    def _answers(self, data: Any, request: Request, eos: list[int]) -> list[Answer]:
        """The answers in a response. Raises ServerFault if it is incomplete."""
        try:
            choices = sorted(data["choices"], key=lambda choice: choice["index"])
            answers = [
                Answer(
                    choice["token_ids"],
                    choice["logprobs"]["token_logprobs"],
                    choice["finish_reason"] == "stop",
                )
                for choice in choices
            ]
            complete = len(answers) == request.count and all(
                _is_complete(answer, choice["finish_reason"], request, eos=eos)
                for answer, choice in zip(answers, choices, strict=True)
            )
        except (KeyError, TypeError):
            complete = False
        if not complete:
            raise ServerFault(f"sent incomplete answers: {str(data)[:300]}")
        return answers

    def reload(self, folder: Path) -> None:
        """Loads the weights of a folder, which the server must be able to read.

        Raises ConfigError if the server lacks the route.
        """
        body = {"method": "reload_weights", "kwargs": {"weights_path": str(folder)}}
        self._call("POST", "/collective_rpc", body)
        self.reset_cache()

    def reset_cache(self) -> None:
        """Forgets the keys of earlier prompts. Raises ConfigError if the server lacks the route."""
        response = self._call("POST", "/reset_prefix_cache", {})
        if isinstance(response, dict) and response.get("success") is False:
            raise ServerFault("/reset_prefix_cache: keeps keys that other weights have computed")

    def _call(self, method: str, route: str, body: Any = None) -> Any:
        try:
            response = self._http.request(method, route, json=body)
        except httpx2.TimeoutException:
            raise ServerFault(f"no response to {route} in {self.timeout:g} s", hangs=True) from None
        except (httpx2.HTTPError, RuntimeError) as error:  # RuntimeError: closed by another thread
            raise ServerFault(f"{route}: {type(error).__name__}: {error}") from None
        status = response.status_code
        if status >= 500:
            raise ServerFault(f"{route}: status {status}: {response.text[:300]}")
        if status in (401, 403):
            raise ConfigError(
                f"sampler: {self.url} rejects the API key; set the environment variable {API_KEY} to its key"
            )
        if status == 404 and route in ("/collective_rpc", "/reset_prefix_cache"):
            raise ConfigError(
                f"sampler: {self.url} has no route {route}, by which it gets weights; start it with the "
                "environment variable VLLM_SERVER_DEV_MODE=1"
            )
        if status != httpx2.codes.OK:
            raise LlamitaError(f"sampler: {self.url}{route}: status {status}: {response.text[:300]}")
        try:
            return response.json() if response.content else None
        except ValueError:
            raise ServerFault(f"{route}: a response that is no JSON: {response.text[:100]!r}") from None

    def _foreign(self, route: str) -> LlamitaError:
        return LlamitaError(f"sampler: {self.url}{route} does not answer like vLLM; check the address")


def _is_complete(answer: Answer, reason: str | None, request: Request, *, eos: list[int]) -> bool:
    ids, logprobs = answer.ids, answer.logprobs
    numbers = all(type(token) is int for token in ids) and all(type(value) is float for value in logprobs)
    if not (numbers and len(ids) == len(logprobs) > 0):
        return False
    if reason == "length":
        return len(ids) == request.max_new_tokens
    return reason == "stop" and len(ids) <= request.max_new_tokens and ids[-1] in eos
