"""The chat format that a tokenizer's chat template defines.

A template renders whole chats only. To find where answers begin and end, the chat is rendered up to each
message: the text before an answer must be a prefix of the text with the answer, and the answer must end with
EOS. The ids are those of the whole text, as `apply_chat_template` returns them.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Any

from ..data.rows import Message, Turn
from ..errors import DataError
from .llama2 import TAGS

ADVICE = "use another template, or fine-tune with `chat_format: llama2`"


class TemplateFormat:
    """The format of the tokenizer's `chat_template`, for example ChatML."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer, self._eos = tokenizer, str(tokenizer.eos_token)
        added = tokenizer.added_tokens_decoder.values()
        special = [str(token.content) for token in added if token.special]
        # Llama 2's tags are plain text to a tokenizer: control strings only if the template writes them
        tags = [tag for tag in TAGS if tag in str(tokenizer.chat_template)]
        self.control_strings = tuple(dict.fromkeys([*special, *tags]))

    def check(self, messages: Sequence[Message]) -> None:
        """Raises DataError as `encode` does."""
        self._pieces(messages)

    def encode(self, chats: Sequence[Sequence[Message]]) -> list[list[Turn]]:
        """Returns the turns of each chat; text that the template writes after an EOS begins the next prompt.

        Raises DataError if the template rejects a chat, does not end answers with EOS, or renders earlier
        turns differently when a later one is added.
        """
        texts = [self._pieces(chat) for chat in chats]
        encoded = self._tokenizer(
            ["".join(pieces) for pieces in texts], add_special_tokens=False, return_offsets_mapping=True
        )
        turns = []
        for pieces, ids, spans in zip(texts, encoded["input_ids"], encoded["offset_mapping"], strict=True):
            parts = split_ids(pieces, ids, spans) or self._tokenize(pieces)
            answers = [*parts[1::2], *([None] if len(parts) % 2 else [])]
            turns.append([Turn(*turn) for turn in zip(parts[::2], answers, strict=True)])
        return turns

    def _tokenize(self, pieces: list[str]) -> list[list[int]]:
        ids: list[list[int]] = self._tokenizer(pieces, add_special_tokens=False)["input_ids"]
        return ids

    def _pieces(self, messages: Sequence[Message]) -> list[str]:
        """Returns alternating texts of prompts and answers with their EOS; joined they are the whole chat."""
        pieces, rendered = [], ""
        for end in range(1, len(messages) + 1):
            role = messages[end - 1]["role"]
            if role == "user":
                pieces.append(
                    self._suffix(rendered, self._render(messages[:end], add_generation_prompt=True))
                )
            elif role == "assistant":
                pieces.append(self._answer(self._suffix(rendered, self._render(messages[:end]))))
            rendered = "".join(pieces)
        return pieces

    def _answer(self, text: str) -> str:
        answer, eos, _ = text.partition(self._eos)
        if not eos:
            raise DataError(
                f"the chat template doesn't end answers with EOS ({self._eos!r}), so a model would not learn "
                f"to stop; {ADVICE}"
            )
        return answer + eos

    @staticmethod
    def _suffix(prefix: str, text: str) -> str:
        if not text.startswith(prefix):
            raise DataError(
                "the chat template renders earlier turns differently when a later turn is added, so training "
                f"would not match inference: {prefix[-60:]!r} becomes {text[: len(prefix)][-60:]!r}; {ADVICE}"
            )
        return text[len(prefix) :]

    def _render(self, messages: Sequence[Message], add_generation_prompt: bool = False) -> str:
        from jinja2.exceptions import TemplateError

        try:
            text: str = self._tokenizer.apply_chat_template(
                list(messages), tokenize=False, add_generation_prompt=add_generation_prompt
            )
        except TemplateError as error:
            raise DataError(f"the chat template rejects the messages: {error}; {ADVICE}") from None
        return text


def split_ids(
    pieces: Sequence[str], ids: Sequence[int], spans: Sequence[tuple[int, int]]
) -> list[list[int]] | None:
    """Splits the ids of the joined text by pieces; returns None if a token overlaps two pieces.

    Args:
        spans: first character of each id, and the one after its last.
    """
    parts: list[list[int]] = []
    index = 0
    for begin, end in pairwise(accumulate(map(len, pieces), initial=0)):
        first = index
        while index < len(ids) and spans[index][0] < end:
            if spans[index][1] > end or spans[index][0] < begin:
                return None
            index += 1
        parts.append(list(ids[first:index]))
    return parts
