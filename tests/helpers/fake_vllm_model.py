"""What a fake vLLM server computes: answers of a Llama, decoded with the parameters of vLLM's requests."""

from __future__ import annotations

import secrets
import threading
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from llamita.model.saving import quiet
from llamita.sampling.decoder import Decoder
from llamita.sampling.draws import draw, uniforms
from llamita.sampling.weights import copy_weights

from .fake_vllm_errors import DEFAULT_TOKENS

_reading = threading.Lock()  # transformers patches its classes while it loads, in all threads


class Answer(NamedTuple):
    """One sample.

    Attributes:
        token_ids: sampled ids, with the EOS or stop token if there is one.
        logprobs: log-probability of each token.
        stop: the token that ended the answer; None if it was truncated at `max_tokens`.
    """

    token_ids: list[int]
    logprobs: list[float]
    stop: int | None


class FakeModel:
    """A Llama and its tokenizer, loaded from a Hugging Face folder.

    Args:
        dtype: precision of the weights, `auto` for that of the folder.
        max_model_len: maximum number of tokens of prompt and answer; None: that of the model.
        raw_logprobs: report log-probabilities at temperature 1, before top-p and logit bias.
    """

    def __init__(
        self, folder: Path, dtype: str = "auto", max_model_len: int | None = None, *, raw_logprobs: bool
    ) -> None:
        self._dtype, self._raw_logprobs = dtype, raw_logprobs
        self._lock = threading.Lock()  # weights do not change during an answer
        self.tokenizer = AutoTokenizer.from_pretrained(str(folder))
        model = self._read(folder)
        ends = model.generation_config.eos_token_id  # vLLM does not read that of config.json
        self.eos = {self.tokenizer.eos_token_id, *(ends if isinstance(ends, list) else [ends])}
        self.max_model_len = max_model_len or model.config.max_position_embeddings
        if self.max_model_len > model.config.max_position_embeddings:
            raise ValueError(f"--max-model-len {max_model_len} is greater than max_position_embeddings")
        self.vocab_size = model.config.vocab_size
        self._weights = copy_weights(model)
        self._shapes = _shapes(model)

    def reload(self, folder: Path) -> None:
        """Replaces the weights by those of a folder.

        Raises:
            OSError: the folder does not exist or has no weights.
            ValueError: its weights have other shapes.
        """
        model = self._read(folder)
        if _shapes(model) != self._shapes:
            raise ValueError(f"{folder}: its weights have other shapes than those of the served model")
        with self._lock:
            self._weights = copy_weights(model)

    def answers(self, body: dict[str, Any]) -> list[Answer]:
        """The answers to a request of `/v1/completions`, whose `prompt` is a list of token ids.

        Sample i of a request with seed s is that of a request with `n` = 1 and seed s + i. It is also the
        answer of `LlamaSampler.sample` to this prompt alone, if its pad is excluded by `logit_bias`.
        """
        count, seed = body.get("n", 1), body.get("seed")
        steps = min(body.get("max_tokens", DEFAULT_TOKENS), self.max_model_len - len(body["prompt"]))
        first = secrets.randbits(62) if seed is None else seed
        uniform = torch.cat([uniforms(first + sample, [(0, 0)], steps) for sample in range(count)])
        with self._lock:
            decoder = Decoder(self._weights)
            logits = decoder.prefill([body["prompt"]], torch.zeros(count, dtype=torch.long), steps)
            tokens, logprobs = self._decode(decoder, logits, body, uniform=uniform)
        stops = {*self.eos, *(body.get("stop_token_ids") or [])}
        return [_until_stop(*row, stops) for row in zip(tokens.tolist(), logprobs.tolist(), strict=True)]

    def _decode(
        self, decoder: Decoder, logits: Tensor, body: dict[str, Any], *, uniform: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Samples all steps, also those after a stop; returns tokens and log-probabilities `[n, steps]`."""
        seen = torch.tensor([body["prompt"]] * len(uniform))
        first, chosen = seen.shape[1], []
        greedy = not _value(body, "temperature", 1.0)
        for step in range(uniform.shape[1]):
            raw = logits.float().log_softmax(-1)
            processed = process_logits(logits.float().clone(), seen, body).log_softmax(-1)
            tokens = processed.argmax(-1) if greedy else draw(processed, uniform[:, step])
            reported = raw if self._raw_logprobs else processed
            chosen.append(reported.gather(-1, tokens[:, None]))
            seen = torch.cat([seen, tokens[:, None]], 1)
            if step + 1 < uniform.shape[1]:
                logits = decoder.step(tokens)
        return seen[:, first:], torch.cat(chosen, 1)

    def _read(self, folder: Path) -> Any:
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder} is not a folder")
        with quiet(), _reading:
            return AutoModelForCausalLM.from_pretrained(str(folder), dtype=self._dtype)


def process_logits(logits: Tensor, seen: Tensor, body: dict[str, Any]) -> Tensor:
    """Applies a request's parameters in the order of vLLM's sampler; greedy requests use only the first two.

    Args:
        logits: `[rows, vocabulary]` fp32, changed in place.
        seen: `[rows, tokens]` ids of prompt and answer so far.

    Returns:
        `[rows, vocabulary]` fp32, not normalised, -inf for tokens that cannot be sampled.
    """
    for token, bias in (body.get("logit_bias") or {}).items():
        logits[:, int(token)] += bias
    penalty = _value(body, "repetition_penalty", 1.0)
    if penalty != 1:
        values = logits.gather(1, seen)
        logits = logits.scatter(1, seen, torch.where(values > 0, values / penalty, values * penalty))
    temperature = _value(body, "temperature", 1.0)
    if not temperature:
        return logits
    logits = logits / temperature
    probabilities = logits.softmax(-1)
    least = _value(body, "min_p", 0.0) * probabilities.amax(-1, keepdim=True)
    logits = logits.masked_fill(probabilities < least, float("-inf"))
    top_k, top_p = _value(body, "top_k", 0), _value(body, "top_p", 1.0)
    if 0 < top_k < logits.shape[1]:
        logits = logits.masked_fill(logits < logits.topk(top_k).values[:, -1:], float("-inf"))
    if top_p < 1:
        ascending = logits.sort(-1)
        outside = ascending.values.softmax(-1).cumsum(-1) <= 1 - top_p
        outside[:, -1] = False
        logits = logits.masked_fill(outside.scatter(1, ascending.indices, outside), float("-inf"))
    return logits


def _value(body: dict[str, Any], name: str, default: float) -> Any:
    return default if body.get(name) is None else body[name]


def _shapes(model: Any) -> dict[str, torch.Size]:
    return {name: weight.shape for name, weight in model.state_dict().items()}


def _until_stop(tokens: list[int], logprobs: list[float], stops: set[int]) -> Answer:
    for place, token in enumerate(tokens):
        if token in stops:
            return Answer(tokens[: place + 1], logprobs[: place + 1], token)
    return Answer(tokens, logprobs, None)
