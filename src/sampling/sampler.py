"""Samples answers from a Llama, in batches of finished rows dropped and prompts of like length."""

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
from .decoder import Decoder
from .draws import draw, uniforms
from .logprobs import excluded_pad_id, policy_logprobs
from .weights import copy_weights

# Finished rows are dropped once they are this share of the batch: it costs a copy of the others' cache.
FINISHED_SHARE = 0.2


@dataclass(frozen=True)
class Samples:
    """Answers to prompts, in the order of the prompts, the samples of one prompt side by side.

    Attributes:
        prompts: index of the prompt that each answer belongs to.
        answer_ids: token ids, EOS included where the answer is finished.
        logprobs: log-probability (fp32) of each of them, at the sampling temperature (1 for greedy).
        finished: whether the answer ended by itself, by EOS, rather than at `max_new_tokens`.
    """

    prompts: list[int]
    answer_ids: list[list[int]]
    logprobs: list[list[float]]
    finished: list[bool]

    def __len__(self) -> int:
        return len(self.prompts)

    @property
    def contents(self) -> list[list[int]]:
        """The answers without the token that ended them."""
        return [without_end(ids, done) for ids, done in zip(self.answer_ids, self.finished, strict=True)]


def without_end(ids: list[int], finished: bool) -> list[int]:
    """An answer without the token that ended it, which need not be the tokenizer's EOS."""
    return ids[:-1] if finished else ids


class Sampler(ABC):
    """Samples answers, row by row by named draws; what batches are and how they are decoded is its kind's."""

    batch_size: int

    def sample(
        self,
        prompts: Sequence[Sequence[int]],
        max_new_tokens: int,
        num_generations: int = 1,
        *,
        temperature: float = 1.0,
        seed: int | str = 0,
        keys: Sequence[int] | None = None,
        label: str | None = None,
    ) -> Samples:
        """Samples without top-k or top-p; `temperature=0` takes the likeliest token.

        A draw depends on the seed, the prompt's key, the sample's number and the step alone: neither the
        batch size nor the other prompts change an answer.

        Args:
            prompts: token ids, none empty.
            keys: the number that names each prompt's draws; its index where not given. Ranks that share the
                prompts out among them pass the global index.
            label: of a progress bar; None shows none.
        """
        keys = range(len(prompts)) if keys is None else keys
        rows = [(prompt, sample) for prompt in range(len(prompts)) for sample in range(num_generations)]
        return self._sample_rows(
            prompts,
            [prompt for prompt, _ in rows],
            [(keys[prompt], sample) for prompt, sample in rows],
            max_new_tokens=max_new_tokens,
            temperature=temperature,
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
        temperature: float,
        seed: int | str,
        label: str | None,
    ) -> Samples:
        """One answer a row, to the prompt whose index the row is, by the draws of the row's name."""
        table = uniforms(seed, names, max_new_tokens)
        samples = Samples(rows, [[] for _ in rows], [[] for _ in rows], [False] * len(rows))
        with progress(label, len(rows), "answers") as ended:
            for batch in self._batches([len(prompts[prompt]) for prompt in rows], max_new_tokens):
                self._fill(samples, batch, prompts, table=table[batch], temperature=temperature, ended=ended)
        return samples

    def _batches(self, lengths: Sequence[int], max_new_tokens: int) -> list[list[int]]:
        """Rows that are decoded together, by the lengths of their prompts, from the shortest on."""
        return batches(sorted(range(len(lengths)), key=lengths.__getitem__), self.batch_size)

    @abstractmethod
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
        """Decodes the given rows of `samples` side by side and fills them in; `table` is `[rows, steps]`.

        `ended` is called with how many answers have ended since the last call.
        """


class LlamaSampler(Sampler):
    """Samples from a snapshot of a model's weights.

    Args:
        model: any `LlamaForCausalLM`; EOS and pad ids are read from its config.
        batch_size: answers decoded side by side.
        dtype: `float32` or `bfloat16`, of the snapshot; None keeps the model's.

    Raises:
        ConfigError: the model is of a kind that the sampler cannot read.
    """

    def __init__(self, model: LlamaForCausalLM, batch_size: int = 512, dtype: str | None = None) -> None:
        self.batch_size = batch_size
        self._dtype: torch.dtype | None = getattr(torch, dtype) if dtype else None
        self.refresh(model)

    def refresh(self, model: LlamaForCausalLM) -> None:
        """Takes a new snapshot, after the model's weights have changed."""
        self._weights = copy_weights(model, self._dtype)
        self.eos = eos_ids(model.config)
        self._eos = torch.tensor(self.eos, dtype=torch.long, device=self._weights.device)
        self._pad = excluded_pad_id(model.config)

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
        device, steps = self._weights.device, table.shape[1]
        chosen = sorted({samples.prompts[row] for row in rows})
        place = {prompt: index for index, prompt in enumerate(chosen)}
        copies = torch.tensor([place[samples.prompts[row]] for row in rows])
        table = table.to(device)
        ids = torch.zeros(len(rows), steps, dtype=torch.long, device=device)
        logprobs = torch.zeros(len(rows), steps, device=device)
        lengths = torch.full((len(rows),), steps, device=device)
        finished = torch.zeros(len(rows), dtype=torch.bool, device=device)

        decoder = Decoder(self._weights)
        logits = decoder.prefill([list(prompts[prompt]) for prompt in chosen], copies, steps)
        live, open_answers = torch.arange(len(rows), device=device), len(rows)
        for step in range(steps):
            tokens, step_logprobs = self._choose(logits, table[live, step], temperature)
            ids[live, step], logprobs[live, step] = tokens, step_logprobs
            stops = torch.isin(tokens, self._eos) & ~finished[live]
            lengths[live[stops]] = step + 1
            finished[live[stops]] = True
            going = (~finished[live]).nonzero().squeeze(-1)
            ended(open_answers - len(going))
            open_answers = len(going)
            if len(going) == 0:
                break
            if len(going) <= (1 - FINISHED_SHARE) * len(live):
                decoder.keep(going)
                live, tokens = live[going], tokens[going]
            if step + 1 < steps:
                logits = decoder.step(tokens)

        for row, length, end, answer, row_logprobs in zip(
            rows, lengths.tolist(), finished.tolist(), ids.tolist(), logprobs.tolist(), strict=True
        ):
            samples.answer_ids[row], samples.logprobs[row] = answer[:length], row_logprobs[:length]
            samples.finished[row] = end
        ended(open_answers)  # at the limit

    def stream(
        self, prompt: Sequence[int], max_new_tokens: int, temperature: float = 1.0, *, seed: int | str = 0
    ) -> Iterator[int]:
        """Yields the tokens of one answer as they are sampled, the EOS that ends it included.

        The answer is the one that `sample([prompt], …)` gives for the same seed.
        """
        table = uniforms(seed, [(0, 0)], max_new_tokens).to(self._weights.device)
        decoder = Decoder(self._weights)
        logits = decoder.prefill([list(prompt)], torch.zeros(1, dtype=torch.long), max_new_tokens)
        for step in range(max_new_tokens):
            tokens, _ = self._choose(logits, table[:, step], temperature)
            yield int(tokens)
            if bool(torch.isin(tokens, self._eos)) or step + 1 == max_new_tokens:
                return
            logits = decoder.step(tokens)

    def _choose(self, logits: Tensor, uniform: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
        """The next token of each row (`[rows]` int64) and its log-probability (`[rows]` fp32)."""
        logprobs = policy_logprobs(logits, self._pad, temperature)
        tokens = draw(logprobs, uniform) if temperature > 0 else logprobs.argmax(-1)
        return tokens, logprobs.gather(-1, tokens[:, None]).squeeze(-1)
