"""Chats in a tokenizer's own format, read off its chat template.

A template writes whole chats only. Where an answer begins and ends is found by writing the chat up to each
message: the text up to an answer must be how the text with the answer begins, and the answer must end with
EOS. The ids are those of the whole text, as `apply_chat_template` gives them.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Any

from ..data.rows import Message, Turn
from ..errors import DataError
from .llama2 import TAGS

ADVICE = "expected another template, or `chat_format: llama2`"


class TemplateFormat:
    """The format that the tokenizer's `chat_template` writes, ChatML for one."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer, self._eos = tokenizer, str(tokenizer.eos_token)
        added = tokenizer.added_tokens_decoder.values()
        special = [str(token.content) for token in added if token.special]
        # Llama 2's tags are plain text to a tokenizer: control strings only where the template writes them
        tags = [tag for tag in TAGS if tag in str(tokenizer.chat_template)]
        self.marks = tuple(dict.fromkeys([*special, *tags]))

    def check(self, messages: Sequence[Message]) -> None:
        """Raises DataError as `encode` does."""
        self._pieces(messages)

    def encode(self, chats: Sequence[Sequence[Message]]) -> list[list[Turn]]:
        """The turns of each chat; what the template writes behind an EOS begins the next turn's prompt.

        Raises DataError for a template that refuses a chat, whose answers don't end with EOS, or that writes
        what was said before differently once more is said.
        """
        texts = [self._pieces(chat) for chat in chats]
        encoded = self._tokenizer(
            ["".join(pieces) for pieces in texts], add_special_tokens=False, return_offsets_mapping=True
        )
        turns = []
        for pieces, ids, spans in zip(texts, encoded["input_ids"], encoded["offset_mapping"], strict=True):
            parts = cut(pieces, ids, spans) or self._tokenizer(pieces, add_special_tokens=False)["input_ids"]
            answers = [*parts[1::2], *([None] if len(parts) % 2 else [])]
            turns.append([Turn(*turn) for turn in zip(parts[::2], answers, strict=True)])
        return turns

    def _pieces(self, messages: Sequence[Message]) -> list[str]:
        """Prompt and answer in turn, the answers with their EOS; joined they are the chat up to the last."""
        pieces, told = [], ""
        for end in range(1, len(messages) + 1):
            role = messages[end - 1]["role"]
            if role == "user":
                pieces.append(self._behind(told, self._write(messages[:end], add_generation_prompt=True)))
            elif role == "assistant":
                pieces.append(self._answer(self._behind(told, self._write(messages[:end]))))
            told = "".join(pieces)
        return pieces

    def _answer(self, text: str) -> str:
        answer, eos, _ = text.partition(self._eos)
        if not eos:
            raise DataError(
                f"the chat template doesn't end an answer with EOS ({self._eos!r}), so a model would never "
                f"learn to stop; {ADVICE}"
            )
        return answer + eos

    @staticmethod
    def _behind(told: str, text: str) -> str:
        if not text.startswith(told):
            raise DataError(
                "the chat template writes what was said before differently once more is said: "
                f"{told[-60:]!r} becomes {text[: len(told)][-60:]!r}, so a model would be asked otherwise "
                f"than it was trained; {ADVICE}"
            )
        return text[len(told) :]

    def _write(self, messages: Sequence[Message], add_generation_prompt: bool = False) -> str:
        from jinja2.exceptions import TemplateError

        try:
            text: str = self._tokenizer.apply_chat_template(
                list(messages), tokenize=False, add_generation_prompt=add_generation_prompt
            )
        except TemplateError as error:
            raise DataError(f"the chat template refuses the messages: {error}; {ADVICE}") from None
        return text


def cut(
    pieces: Sequence[str], ids: Sequence[int], spans: Sequence[tuple[int, int]]
) -> list[list[int]] | None:
    """The ids of the joined text, piece by piece; None where a token stands in two of them.

    Args:
        spans: of each id, its first character and the one behind its last.
    """
    parts: list[list[int]] = []
    at = 0
    for begin, end in pairwise(accumulate(map(len, pieces), initial=0)):
        first = at
        while at < len(ids) and spans[at][0] < end:
            if spans[at][1] > end or spans[at][0] < begin:
                return None
            at += 1
        parts.append(list(ids[first:at]))
    return parts
