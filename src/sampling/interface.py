"""The interface of all engines that sample answers, in this process or on servers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

from ..processes import phase
from .decoding import Decoding

Stop = Callable[[list[int]], bool]
"""Whether an answer needs no further token, given its tokens so far."""


@dataclass(frozen=True)
class Samples:
    """Answers in the order of their prompts; the samples of one prompt are adjacent.

    Attributes:
        prompts: index of each answer's prompt.
        answer_ids: token ids, EOS included if the answer is finished.
        logprobs: log-probability (fp32) of each answer token in the distribution that it was drawn from, see
            `next_tokens`.
        finished: whether the answer ended with EOS; False: it was truncated at `max_new_tokens`, or stopped.
        version: version of the weights that sampled all of them, see `Sampler.sync`.
    """

    prompts: list[int]
    answer_ids: list[list[int]]
    logprobs: list[list[float]]
    finished: list[bool]
    version: int = 0

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
    """Samples answers from a model's weights. Where ranks share a sampler, each has one of its own.

    As a context it closes itself at the end.

    Attributes:
        eos: token ids that end an answer; the first one follows an answer that is truncated.
        version: version of the weights, see `sync`.
    """

    eos: list[int]
    version: int

    @abstractmethod
    def sync(self, model: Any, version: int = 0) -> None:
        """Samples from the weights of `model` from now on; every rank calls it.

        Args:
            model: a causal language model, also one that ZeRO-3 has partitioned or that has adapters.
            version: number of these weights, which all `Samples` carry.
        """

    def release(self) -> None:  # noqa: B027 (most engines hold nothing)
        """Frees what this process holds of the weights; only `sync` or `close` may follow."""

    def close(self) -> None:
        """Ends everything that the sampler has started."""
        self.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

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
        stop: Stop | None = None,
        label: str | None = None,
    ) -> Samples:
        """Samples `num_generations` answers per prompt, without top-k; temperature 0 is greedy.

        The draws depend only on the seed, the prompt's key, the sample's number and the step. Neither the
        size of the batches nor the other prompts change an answer.

        Args:
            prompts: token ids, none empty.
            top_p: each token is drawn from the smallest set of likeliest tokens with at least this total
                probability (at the temperature); 1: from all tokens.
            keys: the number that identifies each prompt's draws; default: its index. If ranks share the
                prompts, they pass the global index.
            stop: ends an answer early; it is called every few tokens, so an answer may have some more. vLLM
                does not call it.
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
            stop=stop,
            label=label,
        )

    @phase("sampling")
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
        """Answers the prompts of each dialogue in turn; `temperature` and `top_p` as in `sample`.

        An answer depends only on the seed, the dialogue's index, its history and the turn. In the history
        every answer ends with EOS, also one that was truncated at `max_new_tokens`.

        Args:
            prompts: `[dialogues][turns]` token ids, each from its BOS to [/INST].
            context: maximum number of tokens of a dialogue. A dialogue ends before a turn whose prompt and
                longest possible answer would exceed it.
            label: text of a progress bar; None: no progress bar.

        Returns:
            `[dialogues][turns]` answers, EOS included if they are finished; fewer answers than prompts if
            the dialogue reached `context`.
        """
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
                stop=None,
                label=label and f"{label}, turn {turn + 1}",
            )
            for row, answer, finished in zip(active, samples.answer_ids, samples.finished, strict=True):
                answers[row].append(answer)
                histories[row] += answer if finished else [*answer, self.eos[0]]
        return answers

    @abstractmethod
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
        """One answer per row: `rows` are indices of prompts, `names` identify the rows' draws."""
