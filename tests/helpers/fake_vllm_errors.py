"""Errors of a fake vLLM server, in the shape and words of vLLM 0.32, and the checks of requests."""

from __future__ import annotations

from collections.abc import Iterator
from http import HTTPStatus
from typing import Any, NamedTuple

DEFAULT_TOKENS = 16  # `max_tokens` of a request without it


class Response(NamedTuple):
    """Status and JSON body; the body None is an empty one."""

    status: int
    body: Any


def error(status: HTTPStatus, message: str, *, kind: str | None = None, param: str | None = None) -> Response:
    """An error in vLLM's shape; `kind` is its type, by default the name of the status."""
    fields = {"message": message, "type": kind or status.phrase, "param": param, "code": status.value}
    return Response(status.value, {"error": fields})


def bad_request(message: str, param: str | None = None) -> Response:
    """The error of a request with wrong values."""
    return error(HTTPStatus.BAD_REQUEST, message, kind="BadRequestError", param=param)


def internal_error(message: str) -> Response:
    """The error of a request that failed in the server."""
    return error(HTTPStatus.INTERNAL_SERVER_ERROR, message, kind="InternalServerError")


def unknown_model(body: dict[str, Any], name: str) -> Response | None:
    """The error of a request for another model than `name`; None if it names this one or none."""
    if body.get("model") in (None, "", name):
        return None
    message = f"The model `{body['model']}` does not exist. Valid aliases: {name}."
    return error(HTTPStatus.NOT_FOUND, message, kind="NotFoundError", param="model")


def wrong_completion(
    body: dict[str, Any], vocab_size: int, max_model_len: int, *, max_logprobs: int
) -> Response | None:
    """The first error of a request of `/v1/completions`; None if it can be answered.

    As in vLLM, a prompt must leave room for one token of the answer, not for `max_tokens`: vLLM truncates
    longer answers at the context.
    """
    return next(
        (
            bad_request(message, param)
            for is_wrong, message, param in (
                *_prompt_checks(body["prompt"], vocab_size, max_model_len),
                *_parameter_checks(body, vocab_size, max_logprobs),
            )
            if is_wrong
        ),
        None,
    )


def _prompt_checks(prompt: list[int], vocab_size: int, most: int) -> Iterator[tuple[bool, str, str | None]]:
    length = len(prompt)
    yield not prompt, "You must pass at least one prompt", None
    yield (
        length > most,
        f"This model's maximum context length is {most} tokens. However, your prompt contains at least "
        f"{most + 1} input tokens, which exceeds this limit even without any output tokens. Please reduce "
        f"the length of the input prompt. (parameter=input_tokens, value={most + 1})",
        "input_tokens",
    )
    yield (
        length == most,
        "max_tokens must be at least 1, got 0. (parameter=max_tokens, value=0)",
        "max_tokens",
    )
    highest = max(prompt, default=0)
    yield highest >= vocab_size, f"Token id {highest} is out of vocabulary", None


def _parameter_checks(
    body: dict[str, Any], vocab_size: int, max_logprobs: int
) -> Iterator[tuple[bool, str, str | None]]:
    count, temperature, top_p = body.get("n", 1), body.get("temperature"), body.get("top_p")
    tokens, logprobs = body.get("max_tokens", DEFAULT_TOKENS), body.get("logprobs") or 0
    yield count < 1, f"n must be at least 1, got {count}.", None
    yield (
        (temperature or 0) < 0,
        f"temperature must be non-negative, got {temperature}. (parameter=temperature, value={temperature})",
        "temperature",
    )
    yield (
        top_p is not None and not 0 < top_p <= 1,
        f"top_p must be in (0, 1], got {top_p}. (parameter=top_p, value={top_p})",
        "top_p",
    )
    yield (
        tokens < 1,
        f"max_tokens must be at least 1, got {tokens}. (parameter=max_tokens, value={tokens})",
        "max_tokens",
    )
    yield temperature == 0 and count > 1, f"n must be 1 when using greedy sampling, got {count}.", None
    yield (
        logprobs > max_logprobs,
        f"Requested sample logprobs of {logprobs}, which is greater than max allowed: {max_logprobs} "
        f"(parameter=logprobs, value={logprobs})",
        "logprobs",
    )
    outside = [int(token) for token in body.get("logit_bias") or {} if int(token) >= vocab_size]
    yield (
        bool(outside),
        f"token_id(s) {outside} in logit_bias contain out-of-vocab token ids. Vocabulary size: {vocab_size} "
        f"(parameter=logit_bias, value={outside})",
        "logit_bias",
    )
