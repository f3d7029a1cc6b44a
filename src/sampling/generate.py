"""Sampling from any causal language model through `generate`, with the results of `LlamaSampler`."""

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
from .dialogues import DialogueSampler
from .draws import uniforms
from .logprobs import excluded_pad_id
from .sampler import Sampler, Samples
from .weights import is_supported


class GenerateSampler(Sampler):
    """Sampler for all other architectures, with the interface and the random numbers of `DialogueSampler`.

    Args:
        model: any causal language model; its weights are used directly, not copied.
        batch_size: number of answers decoded in parallel.
        dtype: precision to compute in, `float32` or `bfloat16`; None: that of the weights.
    """

    def __init__(self, model: PreTrainedModel, batch_size: int = 512, dtype: str | None = None) -> None:
        self.batch_size, self._dtype = batch_size, dtype or "float32"
        self.refresh(model)

    def refresh(self, model: PreTrainedModel) -> None:
        """Samples from `model` from now on."""
        self._model: Any = model.to(device())
        self.eos = eos_ids(model.config)
        self._pad = excluded_pad_id(model.config)

    def sample_dialogues(
        self,
        prompts: Sequence[Sequence[Sequence[int]]],
        max_new_tokens: int,
        context: int,
        *,
        temperature: float = 1.0,
        top_p: float = 1.0,
        seed: int | str = 0,
        label: str | None = None,
    ) -> list[list[list[int]]]:
        """See `DialogueSampler.sample_dialogues`; here each turn recomputes its whole history."""
        answers: list[list[list[int]]] = [[] for _ in prompts]
        histories: list[list[int]] = [[] for _ in prompts]
        longest = max(map(len, prompts), default=0)
        for turn in range(longest):
            active = []
            for row, turns in enumerate(prompts):
                if len(answers[row]) == turn < len(turns):
                    history = [*histories[row], *turns[turn]]
                    if len(history) + max_new_tokens <= context:
                        histories[row] = history
                        active.append(row)
            if not active:
                break
            samples = self._sample_rows(
                [histories[row] for row in active],
                list(range(len(active))),
                [(row, turn) for row in active],
                max_new_tokens=max_new_tokens,
                decoding=Decoding(temperature, top_p),
                seed=seed,
                label=label and f"{label}, turn {turn + 1}",
            )
            for row, answer, finished in zip(active, samples.answer_ids, samples.finished, strict=True):
                answers[row].append(answer)
                histories[row] += answer if finished else [*answer, self.eos[0]]
        return answers

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
        tokens: SimpleQueue[int | None] = SimpleQueue()
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
            finally:
                tokens.put(None)

        thread = threading.Thread(target=generate, daemon=True)
        thread.start()
        try:
            while (token := tokens.get()) is not None:
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
        advance: Callable[[float], None],
    ) -> None:
        row_prompts = [prompts[samples.prompts[row]] for row in rows]
        tokens, logprobs = self._generate(row_prompts, uniform, decoding)
        for row, ids, values in zip(rows, tokens.tolist(), logprobs.tolist(), strict=True):
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
        return [batch for _, rows in by_length for batch in batches(list(rows), self.batch_size)]

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


def sampler_for(
    model: Any, batch_size: int = 512, dtype: str | None = None
) -> DialogueSampler | GenerateSampler:
    """A `DialogueSampler` if it supports the model (it is faster), else a `GenerateSampler`."""
    return (DialogueSampler if is_supported(model) else GenerateSampler)(model, batch_size, dtype)


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

    def __init__(self, queue: SimpleQueue[int | None]) -> None:
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
