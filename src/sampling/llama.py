"""Batched sampling from a Llama: prompts of similar length share a batch, and finished rows leave it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from itertools import count as steps_from

import torch
from torch import Tensor
from transformers import LlamaForCausalLM

from ..batches import batches_by_length
from ..console import progress
from ..model.special import eos_ids
from .answers import Answers
from .cache import Room
from .decoder import Decoder
from .decoding import Decoding, next_tokens
from .draws import uniforms
from .interface import Sampler, Samples
from .logprobs import excluded_pad_id
from .settings import CACHE_TOKENS
from .static import new_decoder
from .weights import LlamaWeights, copy_weights

# Finished rows are replaced by waiting ones, or dropped, when they reach this share of the rows: that moves
# the cache of the others.
FINISHED_SHARE = 0.2

# With K answers to a prompt, the cache has room for 3 / K times as many prompts as answers: a prompt remains
# until the longest of its answers has ended.
PROMPT_ROOM = 3

# Steps from one check of which rows are finished to the next. A check waits for the GPU, which is then idle
# until the next step is launched. On a CPU nothing waits: fewer checks would only mean more steps of finished
# rows.
_STEPS_PER_CHECK = {"cpu": 1, "cuda": 8}


def steps_per_check(device: torch.device) -> int:
    """Number of decoding steps after which a sampler checks which rows are finished."""
    return _STEPS_PER_CHECK[device.type]


def room_of(lengths: Sequence[int], prompts: int, new_tokens: int, cache_tokens: int) -> Room:
    """Room for as many of the rows as `cache_tokens` allow.

    Args:
        lengths: tokens of each row's prompt.
        prompts: number of distinct prompts.
    """
    share = min(1.0, PROMPT_ROOM * prompts / len(lengths))
    longest = max(lengths)
    rows = max(1, min(len(lengths), int(cache_tokens / (share * longest + new_tokens))))
    return Room(rows, max(1, int(share * rows)), longest, new_tokens - 1)


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
        advance: Callable[[float], None],
    ) -> None:
        """Decodes one batch and stores its answers in the given rows of `samples`.

        Args:
            uniform: `[rows, steps]` random numbers in [0, 1).
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

    def _batches(self, lengths: Sequence[int], max_new_tokens: int) -> list[list[int]]:
        """Queues of rows, the longest prompts first; none needs half as many tokens as the first one."""
        queues: list[list[int]] = []
        for row in sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True):
            needed = lengths[row] + max_new_tokens
            if not queues or 2 * needed <= lengths[queues[-1][0]] + max_new_tokens:
                queues.append([])
            queues[-1].append(row)
        return queues

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
        advance: Callable[[float], None],
    ) -> None:
        queue = [samples.prompts[row] for row in rows]
        lengths = [len(prompts[prompt]) for prompt in queue]
        room = room_of(lengths, len(set(queue)), uniform.shape[1], self.cache_tokens)
        decoder, answers = new_decoder(self._weights, room), Answers(uniform, self._eos)

        logits = _start(decoder, answers, queue, prompts=prompts)
        count = size = len(logits)  # unfinished rows as of the last check; rows since the cache last changed
        for step in steps_from(1):
            # What is sampled for a finished row is ignored later: it follows the end of its answer.
            tokens, chosen = next_tokens(logits, answers.numbers(), self._pad, decoding=decoding)
            answers.append(tokens, chosen)
            if step % steps_per_check(tokens.device) == 0 or decoder.is_full:
                left = answers.unfinished.nonzero().squeeze(-1)
                advance(count - len(left))
                count = len(left)
                if count == answers.waiting == 0:
                    break
                if decoder.is_full or count <= (1 - FINISHED_SHARE) * size:
                    answers.keep(left)
                    decoder.keep(left)
                    logits = decoder.step(tokens[left]) if count else logits[:0]
                    if answers.waiting and decoder.has_room:
                        logits = torch.cat((logits, _start(decoder, answers, queue, prompts=prompts)))
                    count = size = len(logits)
                    continue
            logits = decoder.step(tokens)
        for row, result in zip(rows, answers.results(), strict=True):
            samples.answer_ids[row], samples.logprobs[row], samples.finished[row] = result

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
        decoder = new_decoder(self._weights, Room(1, 1, len(prompt), max_new_tokens))
        decoding = Decoding(temperature, top_p)
        logits = decoder.add([list(prompt)], [0])
        for step in range(max_new_tokens):
            tokens, _ = next_tokens(logits, uniform[:, step], self._pad, decoding=decoding)
            yield int(tokens)
            if int(tokens) in self.eos or step + 1 == max_new_tokens:
                return
            logits = decoder.step(tokens)


def _start(
    decoder: Decoder, answers: Answers, queue: list[int], *, prompts: Sequence[Sequence[int]]
) -> Tensor:
    """Starts as many waiting answers as there is room for; returns their logits, `[rows, vocabulary]`.

    `queue`: index of each answer's prompt; answers to the same prompt are adjacent.
    """
    waiting = queue[len(queue) - answers.waiting :]
    chosen = waiting[: decoder.room.rows - len(answers.unfinished)]
    places = {prompt: place for place, prompt in enumerate(dict.fromkeys(chosen))}
    copies = [places[prompt] for prompt in chosen if places[prompt] < decoder.room.prompts - decoder.prompts]
    answers.start(len(copies))
    return decoder.add([list(prompts[prompt]) for prompt in places][: copies[-1] + 1], copies)
