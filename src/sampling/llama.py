"""Batched sampling from a Llama: prompts of similar length share a batch, and finished rows leave it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor
from transformers import LlamaForCausalLM

from ..batches import batches_by_length
from ..console import progress
from ..model.special import eos_ids
from .decoding import Decoding, next_tokens
from .draws import uniforms
from .interface import Sampler, Samples, Stop
from .logprobs import excluded_pad_id
from .settings import CACHE_TOKENS
from .static import new_decoder
from .weights import LlamaWeights, copy_weights

# Finished rows are dropped when they reach this share of the batch; dropping moves the cache of the others.
FINISHED_SHARE = 0.2

# Steps after which an answer is checked for its stop, which decodes all of its tokens.
STEPS_PER_STOP = 8

# Steps from one check of which rows are finished to the next. A check waits for the GPU, which is then idle
# until the next step is launched. On a CPU nothing waits: fewer checks would only mean more steps of finished
# rows.
_STEPS_PER_CHECK = {"cpu": 1, "cuda": 8}


def steps_per_check(device: torch.device) -> int:
    """Number of decoding steps after which a sampler checks which rows are finished."""
    return _STEPS_PER_CHECK[device.type]


class LocalSampler(Sampler):
    """Samples in this process, in batches; subclasses define how to decode one."""

    cache_tokens: int

    def _sample_rows(
        self,
        prompts: Sequence[Sequence[int]],
        rows: list[int],
        names: list[tuple[int, int]],
        *,
        max_new_tokens: int,
        decoding: Decoding,
        seed: int | str,
        stop: Stop | None,
        label: str | None,
    ) -> Samples:
        uniform = uniforms(seed, names, max_new_tokens)
        samples = Samples(rows, [[] for _ in rows], [[] for _ in rows], [False] * len(rows), self.version)
        with progress(label, len(rows), "answers") as advance:
            for batch in self._batches([len(prompts[prompt]) for prompt in rows], max_new_tokens):
                self._decode(
                    samples,
                    batch,
                    prompts,
                    uniform=uniform[batch],
                    decoding=decoding,
                    stop=stop,
                    advance=advance,
                )
        return samples

    def _batches(self, lengths: Sequence[int], max_new_tokens: int) -> list[list[int]]:
        """Rows to decode together, in the order of their prompts' lengths, the shortest first."""
        return batches_by_length([length + max_new_tokens for length in lengths], None, self.cache_tokens)

    @abstractmethod
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
        """Decodes one batch and stores its answers in the given rows of `samples`.

        Args:
            uniform: `[rows, steps]` random numbers in [0, 1).
            stop: see `Sampler.sample`.
            advance: called with the number of answers that have ended since the last call.
        """


class LlamaSampler(LocalSampler):
    """Samples from a copy of a model's weights.

    Args:
        model: a `LlamaForCausalLM`; EOS and pad ids are read from its config.
        cache_tokens: maximum number of tokens in the key-value cache, see `SamplingSettings`.
        dtype: precision of the copy, `float32` or `bfloat16`; None: that of the model.

    Raises:
        ConfigError: the sampler does not support the model, see `copy_weights`.
    """

    def __init__(
        self, model: LlamaForCausalLM, cache_tokens: int = CACHE_TOKENS, dtype: str | None = None
    ) -> None:
        self.cache_tokens = cache_tokens
        self._dtype: torch.dtype | None = getattr(torch, dtype) if dtype else None
        self._copy: LlamaWeights | None = None
        self.sync(model)

    def sync(self, model: LlamaForCausalLM, version: int = 0) -> None:
        """Copies the weights; the old copy is freed first."""
        self.release()
        self._copy, self.version = copy_weights(model, self._dtype), version
        self.eos = eos_ids(model.config)
        self._eos = torch.tensor(self.eos, dtype=torch.long, device=self._weights.device)
        self._pad = excluded_pad_id(model.config)

    def release(self) -> None:
        """Frees the copy of the weights, and on a GPU all memory that sampling no longer uses."""
        self._copy = None
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()

    @property
    def _weights(self) -> LlamaWeights:
        if self._copy is None:
            raise RuntimeError("the sampler was released; call `sync` before it samples again")
        return self._copy

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
        device, steps = self._weights.device, uniform.shape[1]
        distinct = sorted({samples.prompts[row] for row in rows})
        position = {prompt: index for index, prompt in enumerate(distinct)}
        copies = torch.tensor([position[samples.prompts[row]] for row in rows])
        uniform = uniform.to(device)
        ids = torch.zeros(len(rows), steps, dtype=torch.long, device=device)
        logprobs = torch.zeros(len(rows), steps, device=device)

        decoder = new_decoder(self._weights)
        logits = decoder.prefill([list(prompts[prompt]) for prompt in distinct], copies, steps)
        active = torch.arange(len(rows), device=device)  # rows in the decoder; some may be finished
        unfinished = torch.ones_like(active, dtype=torch.bool)
        limits = torch.full_like(active, steps)  # tokens of each answer without EOS
        count = len(rows)  # unfinished rows, as of the last check
        for step in range(1, steps + 1):
            # What is sampled for a finished row is ignored below: it follows an EOS.
            tokens, chosen = next_tokens(logits, uniform[active, step - 1], self._pad, decoding=decoding)
            ids[active, step - 1], logprobs[active, step - 1] = tokens, chosen
            unfinished &= ~self._is_eos(tokens)
            if step == steps:
                break
            if stop is not None and step % STEPS_PER_STOP == 0:
                for row in unfinished.nonzero().squeeze(-1).tolist():
                    if stop(ids[active[row], :step].tolist()):
                        unfinished[row], limits[active[row]] = False, step
            if step % steps_per_check(device) == 0:
                left = unfinished.nonzero().squeeze(-1)
                advance(count - len(left))
                count = len(left)
                if count == 0:
                    break
                if count <= (1 - FINISHED_SHARE) * len(active):
                    decoder.keep(left)
                    active, tokens, unfinished = active[left], tokens[left], unfinished[left]
            logits = decoder.step(tokens)
        advance(count)  # those that ended since the last check or were truncated at the limit
        self._store(samples, rows, ids, logprobs=logprobs, limits=limits)

    def _is_eos(self, tokens: Tensor) -> Tensor:
        """Whether each token is one of the model's EOS tokens."""
        return (tokens[..., None] == self._eos).any(-1)

    def _store(
        self, samples: Samples, rows: list[int], ids: Tensor, *, logprobs: Tensor, limits: Tensor
    ) -> None:
        """Stores what was sampled (`[rows, steps]`) up to each row's first EOS, or else up to its limit."""
        ends = self._is_eos(ids) & (torch.arange(ids.shape[1], device=ids.device) < limits[:, None])
        finished = ends.any(-1)
        lengths = torch.where(finished, ends.int().argmax(-1) + 1, limits)
        for row, length, ended, answer, row_logprobs in zip(
            rows, lengths.tolist(), finished.tolist(), ids.tolist(), logprobs.tolist(), strict=True
        ):
            samples.answer_ids[row], samples.logprobs[row] = answer[:length], row_logprobs[:length]
            samples.finished[row] = ended

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
        decoder, decoding = new_decoder(self._weights), Decoding(temperature, top_p)
        logits = decoder.prefill([list(prompt)], torch.zeros(1, dtype=torch.long), max_new_tokens)
        for step in range(max_new_tokens):
            tokens, _ = next_tokens(logits, uniform[:, step], self._pad, decoding=decoding)
            yield int(tokens)
            if bool(self._is_eos(tokens)) or step + 1 == max_new_tokens:
                return
            logits = decoder.step(tokens)
