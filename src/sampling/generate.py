"""Samples answers from any causal language model through `generate`, as `LlamaSampler` does from a Llama."""

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
from ..model.architecture import carries_state, context_of
from ..model.padding import pad_left
from ..model.precision import computing_in
from ..model.special import eos_ids
from .dialogues import DialogueSampler
from .draws import draw, uniforms
from .logprobs import excluded_pad_id, policy_logprobs
from .sampler import Sampler, Samples
from .weights import is_readable


class GenerateSampler(Sampler):
    """The interface of `DialogueSampler`, with the same draws, for other architectures.

    Args:
        model: any causal language model; its weights are used as they are, not copied.
        batch_size: answers decoded side by side.
        dtype: `float32` or `bfloat16`, that is computed in; None: in the weights' own.
    """

    def __init__(self, model: PreTrainedModel, batch_size: int = 512, dtype: str | None = None) -> None:
        self.batch_size, self._dtype = batch_size, dtype or "float32"
        self.refresh(model)

    def refresh(self, model: PreTrainedModel) -> None:
        """Takes the model as it is now."""
        self._model: Any = model
        self.eos = eos_ids(model.config)
        self._pad = excluded_pad_id(model.config)

    def converse(
        self,
        questions: Sequence[Sequence[Sequence[int]]],
        max_new_tokens: int,
        context: int,
        *,
        temperature: float = 1.0,
        seed: int | str = 0,
        label: str | None = None,
    ) -> list[list[list[int]]]:
        """See `DialogueSampler.converse`; here every turn reads its whole history."""
        answers: list[list[list[int]]] = [[] for _ in questions]
        histories: list[list[int]] = [[] for _ in questions]
        longest = max(map(len, questions), default=0)
        for turn in range(longest):
            live = []
            for row, turns in enumerate(questions):
                if len(answers[row]) == turn < len(turns):
                    history = [*histories[row], *turns[turn]]
                    if len(history) + max_new_tokens <= context:
                        histories[row] = history
                        live.append(row)
            if not live:
                break
            asked, names = [histories[row] for row in live], [(row, turn) for row in live]
            bar = label and f"{label}, turn {turn + 1}"
            told = self._sample_rows(
                asked,
                list(range(len(live))),
                names,
                max_new_tokens=max_new_tokens,
                temperature=temperature,
                seed=seed,
                label=bar,
            )
            for row, answer, ended in zip(live, told.answer_ids, told.finished, strict=True):
                answers[row].append(answer)
                histories[row] += answer if ended else [*answer, self.eos[0]]
        return answers

    def stream(
        self, prompt: Sequence[int], max_new_tokens: int, temperature: float = 1.0, *, seed: int | str = 0
    ) -> Iterator[int]:
        """See `LlamaSampler.stream`."""
        table = uniforms(seed, [(0, 0)], max_new_tokens)
        tokens: SimpleQueue[int | None] = SimpleQueue()
        left = threading.Event()  # set when nobody wants the rest

        def work() -> None:
            try:
                self._generate([prompt], table, temperature, streamer=_Tokens(tokens), stop=_Until(left))
            finally:
                tokens.put(None)

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        try:
            while (token := tokens.get()) is not None:
                yield token
        finally:
            left.set()
            thread.join()

    def _fill(
        self,
        samples: Samples,
        rows: list[int],
        prompts: Sequence[Sequence[int]],
        *,
        table: Tensor,
        temperature: float,
        ended: Callable[[float], None],
    ) -> None:
        asked = [prompts[samples.prompts[row]] for row in rows]
        drawn, logprobs = self._generate(asked, table, temperature)
        for row, ids, values in zip(rows, drawn.tolist(), logprobs.tolist(), strict=True):
            end = next((at for at, token in enumerate(ids) if token in self.eos), None)
            length = len(ids) if end is None else end + 1
            samples.answer_ids[row], samples.logprobs[row] = ids[:length], values[:length]
            samples.finished[row] = end is not None
        ended(len(rows))

    def _batches(self, lengths: Sequence[int], max_new_tokens: int) -> list[list[int]]:
        """Prompts of several lengths share a batch only where that changes none of their answers.

        Some layers that carry state read the pads, and beyond the context RoPE may depend on the longest of a
        batch.
        """
        longest = max(lengths, default=0) + max_new_tokens
        if not carries_state(self._model) and longest <= context_of(self._model.config):
            return super()._batches(lengths, max_new_tokens)
        order = sorted(range(len(lengths)), key=lengths.__getitem__)
        alike = groupby(order, key=lengths.__getitem__)
        return [batch for _, rows in alike for batch in batches(list(rows), self.batch_size)]

    @torch.no_grad()
    def _generate(
        self,
        prompts: Sequence[Sequence[int]],
        table: Tensor,
        temperature: float,
        *,
        streamer: BaseStreamer | None = None,
        stop: StoppingCriteria | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Answers `[rows, steps]`, meaningless behind an EOS, and their log-probabilities (fp32)."""
        device = self._model.device
        ids, mask = pad_left(prompts, self.eos[0])
        drawing = _Drawn(table.to(device), self._pad, temperature)
        own = self._model.generation_config  # may ask for penalties, even where another one is given
        self._model.generation_config = GenerationConfig(eos_token_id=self.eos, pad_token_id=self.eos[0])
        try:
            with computing_in(self._dtype, device):
                told = self._model.generate(
                    input_ids=ids.to(device),
                    attention_mask=mask.to(device),
                    max_new_tokens=table.shape[1],
                    logits_processor=[drawing],
                    stopping_criteria=[stop] if stop else None,
                    streamer=streamer,
                )
        finally:
            self._model.generation_config = own
        return told[:, ids.shape[1] :], torch.stack(drawing.logprobs, dim=1)


def sampler_for(
    model: Any, batch_size: int = 512, dtype: str | None = None
) -> DialogueSampler | GenerateSampler:
    """The fast sampler where it can read the model, otherwise one that goes through `generate`."""
    return (DialogueSampler if is_readable(model) else GenerateSampler)(model, batch_size, dtype)


class _Drawn(LogitsProcessor):
    """Lets `generate`, which takes the likeliest token, take the one that our own number draws."""

    def __init__(self, table: Tensor, pad: int | None, temperature: float) -> None:
        self.table, self.pad, self.temperature = table, pad, temperature
        self.logprobs: list[Tensor] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        logprobs = policy_logprobs(scores, self.pad, self.temperature)
        step = len(self.logprobs)
        tokens = draw(logprobs, self.table[:, step]) if self.temperature > 0 else logprobs.argmax(-1)
        chosen = tokens[:, None]
        self.logprobs.append(logprobs.gather(-1, chosen).squeeze(-1))
        return torch.full_like(scores, float("-inf")).scatter(-1, chosen, 0.0)


class _Tokens(BaseStreamer):
    """Hands tokens on as they come, the prompt left out."""

    def __init__(self, queue: SimpleQueue[int | None]) -> None:
        self._queue, self._prompt = queue, True

    def put(self, value: Tensor) -> None:
        if not self._prompt:
            self._queue.put(int(value))
        self._prompt = False

    def end(self) -> None:
        pass


class _Until(StoppingCriteria):
    def __init__(self, event: threading.Event) -> None:
        self._event = event

    def __call__(self, input_ids: Tensor, scores: Tensor, **_: Any) -> Tensor:
        return torch.full((len(input_ids),), self._event.is_set(), device=input_ids.device)
