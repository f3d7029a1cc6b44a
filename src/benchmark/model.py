"""A model under test: scores continuations and samples answers; all ranks share the rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import jinja2
import torch

from ..distributed.device import device
from ..distributed.group import gather_rows
from ..errors import ConfigError
from ..model.checkpoint import context_length, load_causal_lm, load_tokenizer
from ..processes import rank, world_size
from ..sampling.decoding import Decoding
from ..sampling.engines import Samplers
from ..sampling.interface import Sampler
from .scoring import Continuation, score_continuations
from .settings import BenchmarkSettings

GREEDY = Decoding(temperature=0.0)
R = TypeVar("R")


class TestedModel:
    """The model in a folder, loaded when it is first needed.

    Either the model that scores or the sampler's copy of its weights is in memory, not both.

    Attributes:
        name: name of the version.
        context: maximum number of tokens of a prompt and its answer.
    """

    __test__ = False  # for pytest

    def __init__(self, name: str, folder: Path, settings: BenchmarkSettings, *, samplers: Samplers) -> None:
        self.name, self._folder, self._settings, self._samplers = name, folder, settings, samplers
        self.context = context_length(folder)
        self._scoring: Any = None
        self._sampler: Sampler | None = None

    @cached_property
    def tokenizer(self) -> Any:
        return load_tokenizer(self._folder)

    @cached_property
    def _bos(self) -> str:
        """Text of the token that begins a text: BOS, or EOS if there is none."""
        return str(self.tokenizer.decode(self.prefix_token_id))

    @property
    def prefix_token_id(self) -> int:
        bos = self.tokenizer.bos_token_id
        return int(self.tokenizer.eos_token_id if bos is None else bos)

    def encode(self, text: str, add_special_tokens: bool | None = None) -> list[int]:
        """Token ids; a text that begins with BOS, as a chat template writes it, gets no second one."""
        if add_special_tokens is None and text.startswith(self._bos):
            add_special_tokens = False
        special = {} if add_special_tokens is None else {"add_special_tokens": add_special_tokens}
        return list(self.tokenizer.encode(text, **special))

    def decode(self, ids: Sequence[int]) -> str:
        """Text of token ids, without special tokens."""
        return str(self.tokenizer.decode(ids, skip_special_tokens=True))

    def dialogue(self, messages: Sequence[dict[str, str]], *, answer: bool = True) -> str:
        """The text of a dialogue in the chat template; a system message that it rejects is dropped.

        `answer`: whether an answer begins at its end; otherwise the last message, an answer, is continued.
        """
        options = {"tokenize": False, "add_generation_prompt": answer, "continue_final_message": not answer}
        try:
            return str(self.tokenizer.apply_chat_template(messages, **options))
        except jinja2.TemplateError:
            rest = [message for message in messages if message["role"] != "system"]
            return str(self.tokenizer.apply_chat_template(rest, **options))

    def check_limits(self) -> None:
        """Raises ConfigError if a benchmark's longest answer leaves no room for a prompt."""
        for name, task in self._settings.tasks.chosen().items():
            limit = getattr(task, "max_new_tokens", 0)
            if limit >= self.context:
                raise ConfigError(
                    f"tasks.{name}.max_new_tokens: {limit:,}; expected fewer than the context of "
                    f"{self.name}, {self.context:,} tokens"
                )

    def check_template(self) -> None:
        """Raises ConfigError if the tokenizer has no chat template."""
        if not self.tokenizer.chat_template:
            raise ConfigError(
                f"{self.name}: its tokenizer has no chat template; set chat_template: false for plain text "
                "in the prompts of all models"
            )

    def fitted(self, ids: list[int], max_new_tokens: int) -> list[int]:
        """The last tokens of a prompt, as many as leave room for an answer (see `check_limits`)."""
        return ids[max_new_tokens - self.context :]

    def score(self, rows: Sequence[Continuation], label: str) -> list[tuple[float, bool]]:
        """See `score_continuations`; every rank calls it and gets all results."""

        def score(indices: list[int]) -> list[tuple[float, bool]]:
            return score_continuations(
                self._model_to_score(),
                [rows[index] for index in indices],
                cached_tokens=self._settings.sampling_cache_tokens,
                label=f"{self.name}: {label}",
            )

        return _shared(len(rows), score)

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

        The prompts must leave room for the answers, see `fitted`.
        """

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

        return _shared(len(prompts), sample)

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
            self.release()
            model = None
            if self._settings.sampler.engine != "vllm":
                # in the host's memory: a GPU would hold it beside the sampler's copy
                model = load_causal_lm(self._folder, self._settings.dtype).eval()
                model.config.pad_token_id = None  # lm-eval's own models may sample the pad, so ours may, too
            self._sampler = self._samplers.of(self._folder, model)
        return self._sampler


def _shared(count: int, work: Callable[[list[int]], list[R]]) -> list[R]:
    """Results of all `count` rows, on every rank; each works on its share."""
    own = list(range(rank(), count, world_size()))
    results = dict(gather_rows(list(zip(own, work(own), strict=True))))
    return [results[index] for index in range(count)]
