"""A model under test: scores continuations and samples answers; all ranks share the rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import torch

from ..distributed.device import device
from ..distributed.group import gather_rows
from ..errors import ConfigError
from ..model.checkpoint import context_length, load_causal_lm, load_tokenizer
from ..processes import rank, world_size
from ..sampling.decoding import Decoding
from ..sampling.engines import Samplers
from ..sampling.interface import Sampler
from .scoring import Cluster, Continuation, clusters, score_continuations
from .settings import BenchmarkSettings

GREEDY = Decoding(temperature=0.0)
WORKED_EXAMPLES = 256  # tokens that prompts must have in common to be sampled apart from the others
R = TypeVar("R")


class TestedModel:
    """The model in a folder, loaded when it is first needed.

    Either the model that scores or the sampler's copy of its weights is in memory, not both.

    Attributes:
        name: name of the version.
        context: maximum number of tokens of a prompt and its answer.
    """

    __test__ = False  # for pytest

    def __init__(self, name: str, folder: Path, settings: BenchmarkSettings, samplers: Samplers) -> None:
        self.name, self._folder, self._settings, self._samplers = name, folder, settings, samplers
        self.context = context_length(folder)
        self._scoring: Any = None
        self._sampler: Sampler | None = None

    @cached_property
    def tokenizer(self) -> Any:
        return load_tokenizer(self._folder)

    def score(self, rows: Sequence[Continuation], label: str) -> list[tuple[float, bool]]:
        """See `score_continuations`; every rank calls it and gets all results."""
        whole = [Cluster(0, list(range(len(rows))))]

        def score(indices: list[int]) -> list[tuple[float, bool]]:
            return score_continuations(
                self._model_to_score(),
                [rows[index] for index in indices],
                cached_tokens=self._settings.sampling_cache_tokens,
                label=f"{self.name}: {label}",
            )

        return _shared(whole, len(rows), score)

    def sample(
        self,
        prompts: Sequence[Sequence[int]],
        max_new_tokens: int,
        decoding: Decoding = GREEDY,
        *,
        stop: Callable[[list[int]], bool] | None = None,
        label: str,
    ) -> list[list[int]]:
        """Samples one answer to each prompt; every rank calls it and gets all answers, EOS included.

        Raises ConfigError if a prompt with its answer exceeds the context.
        """
        longest = max(map(len, prompts), default=0)
        if longest + max_new_tokens > self.context:
            raise ConfigError(
                f"tasks.{label}: a prompt of {longest:,} tokens and an answer of {max_new_tokens:,} "
                f"exceed the context of {self.name} ({self.context:,}); lower max_new_tokens"
            )

        def sample(indices: list[int]) -> list[list[int]]:
            samples = self.load_sampler().sample(
                [prompts[index] for index in indices],
                max_new_tokens,
                temperature=decoding.temperature,
                top_p=decoding.top_p,
                seed=f"{self._settings.seed}/benchmark/{label}",
                keys=indices,
                stop=stop,
                label=f"{self.name}: {label}",
            )
            return samples.answer_ids

        # prompts with the same worked examples are sampled together, which processes these once
        groups = clusters(prompts, [len(ids) for ids in prompts], WORKED_EXAMPLES)
        return _shared(groups, len(prompts), sample)

    def release(self) -> None:
        """Frees the weights; the next call loads them again."""
        self._scoring = self._sampler = None
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()

    def _model_to_score(self) -> Any:
        if self._scoring is None:
            self.release()
            self._scoring = load_causal_lm(self._folder, self._settings.dtype).to(device()).eval()
        return self._scoring

    def load_sampler(self) -> Sampler:
        """The sampler, made if there is none."""
        if self._sampler is None:
            model = None
            if self._settings.sampler.engine != "vllm":
                model = self._model_to_score()
                model.config.pad_token_id = None  # lm-eval's own models may sample the pad, so ours may, too
            self._scoring = None
            self._sampler = self._samplers.of(self._folder, model)
        return self._sampler


def _shared(groups: Sequence[Cluster], count: int, work: Callable[[list[int]], list[R]]) -> list[R]:
    """Results of all `count` rows, on every rank; each works on its share of every group."""
    found: list[tuple[int, R]] = []
    for group in groups:
        own = group.rows[rank() :: world_size()]
        found += zip(own, work(own), strict=True)
    results = dict(gather_rows(found))
    return [results[index] for index in range(count)]
