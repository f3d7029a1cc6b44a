"""The engine `generate`: samples from any causal language model, with the answers of `LlamaSampler`."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from queue import SimpleQueue
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, PreTrainedModel, StoppingCriteria
from transformers.generation import BaseStreamer

from ..batches import batches
from ..distributed.device import device
from ..model.architecture import carries_state, context_of
from ..model.padding import pad_left
from ..model.precision import computing_in
from ..model.special import eos_ids
from .decoding import Decoding, next_tokens
from .draws import uniforms
from .interface import Samples, Stop
from .llama import STEPS_PER_STOP, LocalSampler
from .logprobs import excluded_pad_id
from .settings import CACHE_TOKENS


class GenerateSampler(LocalSampler):
    """Samples through transformers' `generate`, with the random numbers of `DialogueSampler`.

    Each turn of a dialogue recomputes its whole history.

    Args:
        model: any causal language model; its weights are used directly, not copied.
        cache_tokens: maximum number of tokens in the key-value cache, see `SamplingSettings`.
        dtype: precision to compute in, `float32` or `bfloat16`; None: that of the weights.
    """

    def __init__(
        self, model: PreTrainedModel, cache_tokens: int = CACHE_TOKENS, dtype: str | None = None
    ) -> None:
        self.cache_tokens, self._dtype = cache_tokens, dtype or "float32"
        self._model: Any = None
        self.sync(model)

    def sync(self, model: PreTrainedModel, version: int = 0) -> None:
        """See `Sampler.sync`; here the weights are not copied."""
        self._model, self.version = model.to(device()), version
        self.eos = eos_ids(model.config)
        self._pad = excluded_pad_id(model.config)

    def release(self) -> None:
        """See `LlamaSampler.release`; here the sampler only forgets the model."""
        self._model = None

    def stream(
        self,
        prompt: Sequence[int],
        max_new_tokens: int,
        temperature: float = 1.0,
        *,
        top_p: float = 1.0,
        seed: int | str = 0,
    ) -> Iterator[int]:
        """See `LlamaSampler.stream`."""
        table = uniforms(seed, [(0, 0)], max_new_tokens)
        tokens: SimpleQueue[int | BaseException | None] = SimpleQueue()
        abandoned = threading.Event()  # set when the caller stops reading tokens

        def generate() -> None:
            try:
                self._generate(
                    [prompt],
                    table,
                    Decoding(temperature, top_p),
                    streamer=_Streamer(tokens),
                    stop=_StopOnEvent(abandoned),
                )
            except BaseException as error:  # raised again in the thread that reads the tokens
                tokens.put(error)
            else:
                tokens.put(None)

        thread = threading.Thread(target=generate, daemon=True)
        thread.start()
        try:
            while (token := tokens.get()) is not None:
                if isinstance(token, BaseException):
                    raise token
                yield token
        finally:
            abandoned.set()
            thread.join()

    def _decode(
        self,
        samples: Samples,
        rows: list[int],
        prompts: Sequence[Sequence[int]],
        *,
        uniform: Tensor,
        decoding: Decoding,
        stop: Stop | None,
        advance: Callable[[float], None],
    ) -> None:
        row_prompts = [prompts[samples.prompts[row]] for row in rows]
        stopping = None if stop is None else _StopRows(stop, len(rows))
        tokens, logprobs = self._generate(row_prompts, uniform, decoding, stop=stopping)
        limits = [None] * len(rows) if stopping is None else stopping.limits
        for row, ids, values, limit in zip(rows, tokens.tolist(), logprobs.tolist(), limits, strict=True):
            ids = ids[:limit]  # `generate` pads with EOS after it
            end = next((index for index, token in enumerate(ids) if token in self.eos), None)
            length = len(ids) if end is None else end + 1
            samples.answer_ids[row], samples.logprobs[row] = ids[:length], values[:length]
            samples.finished[row] = end is not None
        advance(len(rows))

    def _batches(self, lengths: Sequence[int], max_new_tokens: int) -> list[list[int]]:
        """Batches with prompts of several lengths, unless that could change an answer.

        Some layers that carry state also process the pads; beyond the context length RoPE may depend on the
        longest sequence of the batch. In both cases all prompts of a batch have the same length.
        """
        longest = max(lengths, default=0) + max_new_tokens
        if not carries_state(self._model.config) and longest <= context_of(self._model.config):
            return super()._batches(lengths, max_new_tokens)
        order = sorted(range(len(lengths)), key=lengths.__getitem__)
        by_length = groupby(order, key=lengths.__getitem__)
        return [
            batch
            for length, rows in by_length
            for batch in batches(list(rows), max(1, self.cache_tokens // (length + max_new_tokens)))
        ]

    @torch.no_grad()
    def _generate(
        self,
        prompts: Sequence[Sequence[int]],
        uniform: Tensor,
        decoding: Decoding,
        *,
        streamer: BaseStreamer | None = None,
        stop: StoppingCriteria | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Answers `[rows, steps]`, to be ignored after an EOS, and their log-probabilities (fp32)."""
        ids, mask = pad_left(prompts, self.eos[0])
        sampling = _DrawTokens(uniform.to(device()), self._pad, decoding)
        original = self._model.generation_config  # its penalties would apply even if we passed another config
        self._model.generation_config = GenerationConfig(eos_token_id=self.eos, pad_token_id=self.eos[0])
        try:
            with computing_in(self._dtype, device()):
                sequences = self._model.generate(
                    input_ids=ids.to(device()),
                    attention_mask=mask.to(device()),
                    max_new_tokens=uniform.shape[1],
                    logits_processor=[sampling],
                    stopping_criteria=[stop] if stop else None,
                    streamer=streamer,
                )
        finally:
            self._model.generation_config = original
        return sequences[:, ids.shape[1] :], torch.stack(sampling.logprobs, dim=1)


class _DrawTokens(LogitsProcessor):
    """Makes greedy `generate` choose the tokens that our random numbers draw; records their logprobs."""

    def __init__(self, uniform: Tensor, pad: int | None, decoding: Decoding) -> None:
        self.uniform, self.pad, self.decoding = uniform, pad, decoding
        self.logprobs: list[Tensor] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        numbers = self.uniform[:, len(self.logprobs)]
        tokens, logprobs = next_tokens(scores, numbers, self.pad, decoding=self.decoding)
        self.logprobs.append(logprobs)
        return torch.full_like(scores, float("-inf")).scatter(-1, tokens[:, None], 0.0)


class _Streamer(BaseStreamer):
    """Puts tokens into a queue as they are generated; skips the prompt, which `generate` passes first."""

    def __init__(self, queue: SimpleQueue[int | BaseException | None]) -> None:
        self._queue, self._is_prompt = queue, True

    def put(self, value: Tensor) -> None:
        if not self._is_prompt:
            self._queue.put(int(value))
        self._is_prompt = False

    def end(self) -> None:
        pass


class _StopOnEvent(StoppingCriteria):
    def __init__(self, event: threading.Event) -> None:
        self._event = event

    def __call__(self, input_ids: Tensor, scores: Tensor, **_: Any) -> Tensor:
        return torch.full((len(input_ids),), self._event.is_set(), device=input_ids.device)


class _StopRows(StoppingCriteria):
    """Ends the rows whose answer needs no further token; `limits` are their numbers of tokens."""

    def __init__(self, stop: Stop, rows: int) -> None:
        self._stop = stop
        self._steps = 0
        self.limits: list[int | None] = [None] * rows

    def __call__(self, input_ids: Tensor, scores: Tensor, **_: Any) -> Tensor:
        self._steps += 1
        if self._steps % STEPS_PER_STOP == 0:
            answers = input_ids[:, -self._steps :].tolist()
            for row, limit in enumerate(self.limits):
                if limit is None and self._stop(answers[row]):
                    self.limits[row] = self._steps
        return torch.tensor([limit is not None for limit in self.limits], device=input_ids.device)
