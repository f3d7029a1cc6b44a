"""Checks of servers: the tokenizer, reported log-probabilities, and whether new weights have arrived."""

from __future__ import annotations

import math
from typing import Any

from ...errors import ConfigError
from ..decoding import Decoding
from .client import Request
from .servers import Server

# Words, digits, spaces and letters that tokenizers treat differently.
TEXT = "Is 3,141 × 59 = 185.319?  Ünïcödé 東京 [INST] <s> don't\n\tEnd."
CANARY_TOKENS = 16  # of each of the canary's answers
CANARY_PROMPTS = 4
NEAR_ZERO = 1e-3  # nats


def check_tokenizer(server: Server, tokenizer: Any) -> None:
    """Raises ConfigError if the server splits a text into other tokens than `tokenizer`."""
    expected = tokenizer(TEXT, add_special_tokens=False)["input_ids"]
    found = server.client.tokenize(server.model.name, TEXT)
    if found != expected:
        place = next(
            (i for i, pair in enumerate(zip(found, expected, strict=False)) if pair[0] != pair[1]),
            min(len(found), len(expected)),  # one is the beginning of the other
        )
        raise ConfigError(
            f"sampler: server {server.url} has another tokenizer than the stage's model: token {place + 1} "
            f"of a test text is {found[place : place + 1]} there and {expected[place : place + 1]} here; "
            "serve the model of the stage's input, or a version of it"
        )


def check_logprobs(server: Server, prompt: list[int], eos: list[int]) -> None:
    """Raises ConfigError unless the server reports log-probabilities after temperature and bias.

    All tokens but one are made impossible by a bias: the remaining one then has the log-probability 0.
    """
    request = Request(prompt, 1, seed=0, max_new_tokens=1, decoding=Decoding(temperature=0.5))
    (answer,) = server.client.complete(server.model.name, request, eos=eos, bias={eos[0]: 100.0})
    if abs(answer.logprobs[0]) > NEAR_ZERO:
        raise ConfigError(
            f"sampler: server {server.url} reports log-probabilities before temperature and top-p; start it "
            "with --logprobs-mode=processed_logprobs"
        )


def canary(server: Server, prompts: list[list[int]], eos: list[int]) -> list[list[float]]:
    """Log-probabilities of greedy answers to a few prompts: they change when the weights change.

    The server's cache is emptied first, because keys from it may differ in the last bits.
    """
    server.client.reset_cache()
    decoding = Decoding(temperature=0)
    return [
        answer.logprobs
        for prompt in prompts[:CANARY_PROMPTS]
        for answer in server.client.complete(
            server.model.name,
            Request(prompt, 1, seed=0, max_new_tokens=CANARY_TOKENS, decoding=decoding),
            eos=eos,
        )
    ]


def is_unchanged(before: list[list[float]], after: list[list[float]]) -> bool:
    """Whether all log-probabilities of a canary are equal to the last bit, and so probably the weights."""
    return before == after and all(math.isfinite(value) for answer in after for value in answer)
