"""Scores of texts by a reward model, whatever the tokenizer of the models that wrote them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from ..chat_format.encoding import (
    chat_format,
    check_of,
    encode_answer,
    encode_prompt,
    remove_control_strings,
)
from ..console import say
from ..data.rows import Message
from ..model.checkpoint import context_length, load_tokenizer
from ..model.scorer import Scorer


class TextScores:
    """A reward model, which is loaded when the first answers are scored; it encodes texts by itself.

    Raises DataError if the folder has no model's config or no tokenizer with a chat format.
    """

    def __init__(self, folder: Path, dtype: str) -> None:
        self._folder, self._dtype, self._tokenizer = folder, dtype, load_tokenizer(folder)
        self._control_strings = chat_format(self._tokenizer).control_strings
        self._check = check_of(self._tokenizer)
        self._context = context_length(folder)

    @cached_property
    def _scorer(self) -> Scorer:
        return Scorer(self._folder, self._tokenizer, dtype=self._dtype)

    def check(self, messages: Sequence[Message]) -> None:
        """Raises DataError if the reward model's chat format can't write a prompt."""
        self._check(self._clean_messages(messages), "user")

    def __call__(
        self, prompts: Sequence[Sequence[Message]], answers: Sequence[str], label: str
    ) -> list[float | None]:
        """Returns the scores of answers, in (0, 1); `label`: label of the progress bar.

        Control strings of the reward model's chat format are removed: other models may have another format.
        An answer that exceeds the reward model's context with its prompt has no score (None); how many there
        are is reported.
        Raises DataError if the model can't be loaded or its chat format can't write a prompt.
        """
        encoded = [encode_prompt(self._tokenizer, self._clean_messages(messages)) for messages in prompts]
        texts = [encode_answer(self._tokenizer, self._clean(text)) for text in answers]
        fitting = [
            index
            for index, (prompt, answer) in enumerate(zip(encoded, texts, strict=True))
            if len(prompt) + len(answer) <= self._context
        ]
        if len(fitting) < len(answers):
            say(
                f"{label}: {len(answers) - len(fitting):,} of {len(answers):,} answers have no score: with "
                f"their prompts they exceed the reward model's context of {self._context:,} tokens"
            )
        scores: list[float | None] = [None] * len(answers)
        if fitting:
            whole = [encoded[index] for index in fitting]
            without_eos = [texts[index][:-1] for index in fitting]  # the scorer appends it
            for index, score in zip(fitting, self._scorer(whole, without_eos, label), strict=True):
                scores[index] = float(score)
        return scores

    def _clean_messages(self, messages: Sequence[Message]) -> list[Message]:
        return [{"role": one["role"], "content": self._clean(one["content"])} for one in messages]

    def _clean(self, text: str) -> str:
        return remove_control_strings(text, self._control_strings)
