"""Scores of texts by a reward model, whatever the tokenizer of the models that wrote them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from ..chat_format.encoding import chat_format, encode_answer, encode_prompt, remove_control_strings
from ..data.rows import Message
from ..model.checkpoint import load_tokenizer
from ..model.scorer import Scorer


class TextScores:
    """A reward model, which is loaded when the first answers are scored; it encodes texts by itself.

    Raises DataError if the folder has no tokenizer, or none with a chat format.
    """

    def __init__(self, folder: Path, dtype: str) -> None:
        self._folder, self._dtype, self._tokenizer = folder, dtype, load_tokenizer(folder)
        self._control_strings = chat_format(self._tokenizer).control_strings

    @cached_property
    def _scorer(self) -> Scorer:
        return Scorer(self._folder, self._tokenizer, dtype=self._dtype)

    def __call__(
        self, prompts: Sequence[Sequence[Message]], answers: Sequence[str], label: str
    ) -> list[float]:
        """Returns the scores of answers, in (0, 1); `label`: label of the progress bar.

        Control strings of the reward model's chat format are removed: other models may have another format.
        Raises DataError if the model can't be loaded or its chat format can't write a prompt.
        """
        if not answers:
            return []
        encoded = [encode_prompt(self._tokenizer, self._clean_messages(messages)) for messages in prompts]
        texts = [encode_answer(self._tokenizer, self._clean(text))[:-1] for text in answers]
        return [float(score) for score in self._scorer(encoded, texts, label)]  # which appends EOS

    def _clean_messages(self, messages: Sequence[Message]) -> list[Message]:
        return [{"role": one["role"], "content": self._clean(one["content"])} for one in messages]

    def _clean(self, text: str) -> str:
        return remove_control_strings(text, self._control_strings)
