"""Answers prompts and dialogues with a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ..chat_format.encoding import chat_format, encode_questions, remove_control_strings
from ..distributed.device import device
from ..model.architecture import context_of
from ..model.checkpoint import load_causal_lm, load_tokenizer
from ..sampling.decoding import Decoding
from ..sampling.engines import Samplers
from ..sampling.interface import Sampler
from .settings import EvaluateSettings

PLAIN = Decoding()


@dataclass(frozen=True)
class SampledAnswer:
    """One sampled answer.

    Attributes:
        ids: token ids, EOS included if the answer is finished.
        text: decoded and stripped text without control strings of the chat format.
        finished: whether the answer ended with EOS before the length limit.
    """

    ids: list[int]
    text: str
    finished: bool


class Responder:
    """Answers prompts and dialogues with one model.

    Args:
        sampler: sampler with the model's weights.
        tokenizer: tokenizer of the model.
        context: maximum number of tokens of a prompt and its answer together.
        max_new_tokens: maximum number of tokens of an answer.
        seed: seed of all draws; an answer depends on it, its batch's name and its position in the batch only.
    """

    def __init__(
        self,
        sampler: Sampler,
        tokenizer: Any,
        context: int,
        *,
        max_new_tokens: int,
        seed: int,
    ) -> None:
        self.sampler, self.tokenizer = sampler, tokenizer
        self.context, self.max_new_tokens, self.seed = context, max_new_tokens, seed
        self._control_strings = chat_format(tokenizer).control_strings

    def answer(
        self,
        prompts: Sequence[Sequence[int]],
        name: str,
        decoding: Decoding = PLAIN,
        *,
        num_generations: int = 1,
    ) -> list[SampledAnswer]:
        """Samples answers to prompts (token ids up to the last [/INST]); those to one prompt are adjacent.

        `name` identifies the draws: the first answers are the same for any `num_generations`.
        """
        samples = self.sampler.sample(
            prompts,
            max_new_tokens=self.max_new_tokens,
            num_generations=num_generations,
            temperature=decoding.temperature,
            top_p=decoding.top_p,
            seed=f"{self.seed}/{name}",
            label=name,
        )
        return self._answers(samples.answer_ids)

    def answer_dialogues(
        self, questions: Sequence[Sequence[Sequence[int]]], name: str
    ) -> list[list[SampledAnswer]]:
        """Answers dialogues turn by turn at temperature 1, with the model's own answers in the history.

        Args:
            questions: token ids of the user turns, `[dialogues][turns][tokens]`.
            name: identifies the draws.

        Returns:
            The answers, `[dialogues][turns]`. A dialogue that exceeds the context has fewer answers than
            questions.
        """
        ids = self.sampler.sample_dialogues(
            questions,
            self.max_new_tokens,
            self.context,
            temperature=1.0,
            seed=f"{self.seed}/{name}",
            label=name,
        )
        return [self._answers(turns) for turns in ids]

    def _answers(self, rows: list[list[int]]) -> list[SampledAnswer]:
        texts = [self.tokenizer.decode(ids, skip_special_tokens=True) for ids in rows]
        return [
            SampledAnswer(
                ids,
                remove_control_strings(text, self._control_strings).strip(),
                bool(ids) and ids[-1] in self.sampler.eos,
            )
            for ids, text in zip(rows, texts, strict=True)
        ]

    def encode_questions(self, questions: Sequence[str], system: str | None = None) -> list[list[int]]:
        """Returns the ids of each user turn, from the EOS before it up to the start of its answer."""
        return encode_questions(self.tokenizer, questions, system)

    def history(self, questions: Sequence[list[int]], answers: Sequence[SampledAnswer]) -> list[int]:
        """Returns the ids of a dialogue's turns; EOS ends every answer, truncated ones included."""
        ids: list[int] = []
        for question, answer in zip(questions, answers, strict=True):
            ids += question + answer.ids + ([] if answer.finished else [self.tokenizer.eos_token_id])
        return ids

    def fits(self, prompt: Sequence[int]) -> bool:
        """Returns whether the prompt and an answer of maximum length fit in the context."""
        return len(prompt) + self.max_new_tokens <= self.context


def load_model(folder: Path, settings: EvaluateSettings) -> Any:
    """Loads a model on this process's device in the precision of the settings."""
    return load_causal_lm(folder, settings.dtype).to(device()).eval()


class Models:
    """Loads the models of an evaluation; `sft`, which all are compared with, and the last one stay loaded."""

    def __init__(self, sft: Path, settings: EvaluateSettings, samplers: Samplers) -> None:
        self._sft, self._settings, self._samplers = sft, settings, samplers
        self._last: tuple[Path, Any] | None = None

    @cached_property
    def tokenizer(self) -> Any:
        return load_tokenizer(self._sft)

    @cached_property
    def sft(self) -> Any:
        return load_model(self._sft, self._settings)

    def load(self, folder: Path) -> Any:
        """Returns the model of a folder, loaded anew unless it is that of `sft` or of the last call."""
        if folder == self._sft:
            return self.sft
        if self._last is None or self._last[0] != folder:
            self._last = None  # frees its memory before the next model is loaded
            self._last = (folder, load_model(folder, self._settings))
        return self._last[1]

    def responder(self, folder: Path, tokenizer: Any) -> Responder:
        """Returns a responder for the model of a folder, until the next one is requested."""
        model = self.load(folder)
        return Responder(
            self._samplers.of(folder, model),
            tokenizer,
            context_of(model.config),
            max_new_tokens=self._settings.max_new_tokens,
            seed=self._settings.seed,
        )
