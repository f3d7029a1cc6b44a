"""Batched sampling from a Llama: prompts of similar length share a batch, and finished rows leave it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import LlamaForCausalLM

from ..batches import batches
from ..console import progress
from ..model.special import eos_ids
from ..processes import phase
from .decoder import Decoder
from .decoding import Decoding, next_tokens
from .draws import uniforms
from .logprobs import excluded_pad_id
from .weights import copy_weights

# Finished rows are dropped when they reach this share of the batch; dropping copies the cache of the others.
FINISHED_SHARE = 0.2


@dataclass(frozen=True)
class Samples:
    """Answers in the order of their prompts; the samples of one prompt are adjacent.

    Attributes:
        prompts: index of each answer's prompt.
        answer_ids: token ids, EOS included if the answer is finished.
        logprobs: log-probability (fp32) of each answer token in the distribution that it was drawn from, see
            `next_tokens`.
        finished: whether the answer ended with EOS; False: it was truncated at `max_new_tokens`.
    """

    prompts: list[int]
    answer_ids: list[list[int]]
    logprobs: list[list[float]]
    finished: list[bool]

    def __len__(self) -> int:
        return len(self.prompts)

    @property
    def contents(self) -> list[list[int]]:
        """The answers without their EOS."""
        return [without_end(ids, done) for ids, done in zip(self.answer_ids, self.finished, strict=True)]


def without_end(ids: list[int], finished: bool) -> list[int]:
    """An answer without its EOS, which may be another EOS token of the model than the tokenizer's."""
    return ids[:-1] if finished else ids


class Sampler(ABC):
    """Samples answers with named random numbers; subclasses define the batches and how to decode them."""

    batch_size: int

    @phase("sampling")
    def sample(
        self,
        prompts: Sequence[Sequence[int]],
        max_new_tokens: int,
        num_generations: int = 1,
        *,
        temperature: float = 1.0,
        top_p: float = 1.0,
        seed: int | str = 0,
        keys: Sequence[int] | None = None,
        label: str | None = None,
    ) -> Samples:
        """Samples `num_generations` answers per prompt, without top-k; temperature 0 is greedy.

        The random numbers depend only on the seed, the prompt's key, the sample's number and the step.
        Neither the batch size nor the other prompts change an answer.

        Args:
            prompts: token ids, none empty.
            top_p: each token is drawn from the smallest set of likeliest tokens with at least this total
                probability (at the temperature); 1: from all tokens.
            keys: the number that identifies each prompt's random numbers; default: its index. If ranks share
                the prompts, they pass the global index.
            label: text of a progress bar; None: no progress bar.
        """
        keys = range(len(prompts)) if keys is None else keys
        rows = [(prompt, sample) for prompt in range(len(prompts)) for sample in range(num_generations)]
        return self._sample_rows(
            prompts,
            [prompt for prompt, _ in rows],
            [(keys[prompt], sample) for prompt, sample in rows],
            max_new_tokens=max_new_tokens,
            decoding=Decoding(temperature, top_p),
            seed=seed,
            label=label,
        )

    def _sample_rows(
        self,
        prompts: Sequence[Sequence[int]],
        rows: list[int],
        names: list[tuple[int, int]],
        *,
        max_new_tokens: int,
        decoding: Decoding,
        seed: int | str,
        label: str | None,
    ) -> Samples:
        """One answer per row: `rows` are indices of prompts, `names` identify the rows' random numbers."""
        uniform = uniforms(seed, names, max_new_tokens)
        samples = Samples(rows, [[] for _ in rows], [[] for _ in rows], [False] * len(rows))
        with progress(label, len(rows), "answers") as advance:
            for batch in self._batches([len(prompts[prompt]) for prompt in rows], max_new_tokens):
                self._decode(
                    samples,
                    batch,
                    prompts,
                    uniform=uniform[batch],
                    decoding=decoding,
                    advance=advance,
                )
        return samples

    def _batches(self, lengths: Sequence[int], max_new_tokens: int) -> list[list[int]]:
        """Rows to decode together, in the order of their prompts' lengths, the shortest first."""
        return batches(sorted(range(len(lengths)), key=lengths.__getitem__), self.batch_size)

    @abstractmethod
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
        """Decodes one batch and stores its answers in the given rows of `samples`.

        Args:
            uniform: `[rows, steps]` random numbers in [0, 1).
            advance: called with the number of answers that have ended since the last call.
        """


class LlamaSampler(Sampler):
    """Samples from a copy of a model's weights.

    Args:
        model: a `LlamaForCausalLM`; EOS and pad ids are read from its config.
        batch_size: number of answers decoded in parallel.
        dtype: precision of the copy, `float32` or `bfloat16`; None: that of the model.

    Raises:
        ConfigError: the sampler does not support the model, see `copy_weights`.
    """

    def __init__(self, model: LlamaForCausalLM, batch_size: int = 512, dtype: str | None = None) -> None:
        self.batch_size = batch_size
        self._dtype: torch.dtype | None = getattr(torch, dtype) if dtype else None
        self.refresh(model)

    def refresh(self, model: LlamaForCausalLM) -> None:
        """Copies the weights again, after they have changed."""
        self._weights = copy_weights(model, self._dtype)
        self.eos = eos_ids(model.config)
        self._eos = torch.tensor(self.eos, dtype=torch.long, device=self._weights.device)
        self._pad = excluded_pad_id(model.config)

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
        device, steps = self._weights.device, uniform.shape[1]
        distinct = sorted({samples.prompts[row] for row in rows})
        position = {prompt: index for index, prompt in enumerate(distinct)}
        copies = torch.tensor([position[samples.prompts[row]] for row in rows])
        uniform = uniform.to(device)
        ids = torch.zeros(len(rows), steps, dtype=torch.long, device=device)
        logprobs = torch.zeros(len(rows), steps, device=device)
        lengths = torch.full((len(rows),), steps, device=device)
        finished = torch.zeros(len(rows), dtype=torch.bool, device=device)

        decoder = Decoder(self._weights)
        logits = decoder.prefill([list(prompts[prompt]) for prompt in distinct], copies, steps)
        active = torch.arange(len(rows), device=device)  # rows in the decoder; some may be finished
        count = len(rows)  # unfinished rows
        for step in range(steps):
            tokens, step_logprobs = next_tokens(logits, uniform[active, step], self._pad, decoding=decoding)
            ids[active, step], logprobs[active, step] = tokens, step_logprobs
            stops = torch.isin(tokens, self._eos) & ~finished[active]
            lengths[active[stops]] = step + 1
            finished[active[stops]] = True
            unfinished = (~finished[active]).nonzero().squeeze(-1)
            advance(count - len(unfinished))
            count = len(unfinished)
            if count == 0:
                break
            if count <= (1 - FINISHED_SHARE) * len(active):
                decoder.keep(unfinished)
                active, tokens = active[unfinished], tokens[unfinished]
            if step + 1 < steps:
                logits = decoder.step(tokens)

        for row, length, ended, answer, row_logprobs in zip(
            rows, lengths.tolist(), finished.tolist(), ids.tolist(), logprobs.tolist(), strict=True
        ):
            samples.answer_ids[row], samples.logprobs[row] = answer[:length], row_logprobs[:length]
            samples.finished[row] = ended
        advance(count)  # those truncated at the limit

    def stream(
        self,
        prompt: Sequence[int],
        max_new_tokens: int,
        temperature: float = 1.0,
        *,
        top_p: float = 1.0,
        seed: int | str = 0,
    ) -> Iterator[int]:
        """Yields the tokens of one answer as they are sampled, its EOS included.

        The answer equals that of `sample([prompt], …)` with the same seed.
        """
        uniform = uniforms(seed, [(0, 0)], max_new_tokens).to(self._weights.device)
        decoder, decoding = Decoder(self._weights), Decoding(temperature, top_p)
        logits = decoder.prefill([list(prompt)], torch.zeros(1, dtype=torch.long), max_new_tokens)
        for step in range(max_new_tokens):
            tokens, _ = next_tokens(logits, uniform[:, step], self._pad, decoding=decoding)
            yield int(tokens)
            if bool(torch.isin(tokens, self._eos)) or step + 1 == max_new_tokens:
                return
            logits = decoder.step(tokens)
