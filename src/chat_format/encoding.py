"""Chats as token ids, and which of them are trained (section 3.1).

How a chat is written is its tokenizer's own: the format of Llama 2 (`llama2.py`), or whatever its chat
template says (`template.py`). In both a dialogue is encoded in pieces, prompt and answer in turn, the way it
is sampled, so a model is asked just as it was trained.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ..data.intake import Check
from ..data.rows import Dialogue, Message, Turn, check_roles
from ..errors import DataError
from ..model.padding import UNTRAINED
from .llama2 import CHAT_TEMPLATE, Llama2Format
from .template import TemplateFormat


@dataclass(frozen=True)
class Encoded:
    """Token ids and labels of one dialogue, equally long: the label is the id itself, or -100 if untrained.

    The label at t belongs to the token at t (the model shifts them); the first one is always -100.
    """

    input_ids: list[int]
    labels: list[int]


class ChatFormat(Protocol):
    """One way to write chats.

    Attributes:
        marks: its control strings, which no message may contain.
    """

    marks: tuple[str, ...]

    def check(self, messages: Sequence[Message]) -> None:
        """Raises DataError for messages that can't be written, for another reason than roles or marks."""

    def encode(self, chats: Sequence[Sequence[Message]]) -> list[list[Turn]]:
        """The turns of each chat, whose roles alternate."""


def chat_format(tokenizer: Any) -> ChatFormat:
    """The format that a tokenizer's chat template names.

    Raises DataError for a tokenizer without a chat template or without an EOS token.
    """
    if tokenizer.eos_token_id is None:
        raise DataError(f"{_name(tokenizer)}: no EOS token; answers end with it, so a chat model needs one")
    if not tokenizer.chat_template:
        raise DataError(
            f"{_name(tokenizer)}: no chat template; expected a chat model, or one fine-tuned by the "
            "stage sft with `chat_format: llama2`"
        )
    return Llama2Format(tokenizer) if tokenizer.chat_template == CHAT_TEMPLATE else TemplateFormat(tokenizer)


def _name(tokenizer: Any) -> str:
    return str(getattr(tokenizer, "name_or_path", "")) or "the tokenizer"


def check_messages(messages: Sequence[Message], last: str, marks: Sequence[str]) -> None:
    """Raises DataError unless roles alternate up to `last` and no content holds one of the marks."""
    check_roles(messages, last)
    for message in messages:
        for mark in marks:
            if mark in message["content"]:
                raise DataError(
                    f"a {message['role']} message contains {mark!r}, a control string of the model's chat "
                    f"format: {_around(message['content'], mark)!r}"
                )


def _around(text: str, mark: str) -> str:
    at = text.index(mark)
    return text[max(0, at - 30) : at + len(mark) + 30]


def check_of(tokenizer: Any) -> Check:
    """Checks messages up to a role (user or assistant) as `encode_dialogues` and `encode_prompt` do.

    Raises DataError for a tokenizer that can't write chats.
    """
    format = chat_format(tokenizer)

    def check(messages: Sequence[Message], last: str) -> None:
        check_messages(messages, last, format.marks)
        format.check(messages)

    return check


def without_marks(text: str, marks: Sequence[str]) -> str:
    """Text with the marks of a chat format taken out, for what a model wrote and is to be shown again."""
    pattern = "|".join(map(re.escape, marks))
    while (cleaned := re.sub(pattern, "", text)) != text:  # what is left may join to a new mark
        text = cleaned
    return text


def encode_dialogues(tokenizer: Any, dialogues: Sequence[Dialogue]) -> list[Encoded]:
    """Ids and labels of dialogues; the answers that each wants trained are, their EOS included.

    Raises DataError where roles don't alternate up to an answer, or a content holds a mark.
    """
    format = chat_format(tokenizer)
    for dialogue in dialogues:
        check_messages(dialogue.messages, "assistant", format.marks)
    encoded = []
    for dialogue, turns in zip(
        dialogues, format.encode([dialogue.messages for dialogue in dialogues]), strict=True
    ):
        input_ids: list[int] = []
        labels: list[int] = []
        for index, (prompt, answer) in enumerate(turns):
            assert answer is not None
            trained = dialogue.trained == "all" or index == len(turns) - 1
            input_ids += prompt + answer
            labels += [UNTRAINED] * len(prompt) + (answer if trained else [UNTRAINED] * len(answer))
        encoded.append(Encoded(input_ids, labels))
    return encoded


def encode_dialogue(tokenizer: Any, dialogue: Dialogue) -> Encoded:
    """`encode_dialogues` for one."""
    return encode_dialogues(tokenizer, [dialogue])[0]


def encode_prompt(tokenizer: Any, messages: Sequence[Message]) -> list[int]:
    """Ids from the very first to where the answer begins, of messages that end with the user's.

    Raises DataError where they don't, or a content holds a mark.
    """
    format = chat_format(tokenizer)
    check_messages(messages, "user", format.marks)
    [turns] = format.encode([messages])
    return [id for prompt, answer in turns for id in [*prompt, *(answer or ())]]


def encode_questions(tokenizer: Any, questions: Sequence[str], system: str | None = None) -> list[list[int]]:
    """Ids of each question of a dialogue whose answers are to come: from one EOS to the next answer."""
    messages: list[Message] = [] if system is None else [{"role": "system", "content": system}]
    for question in questions:
        messages += [{"role": "user", "content": question}, {"role": "assistant", "content": "…"}]
    format = chat_format(tokenizer)
    check_messages(messages, "assistant", format.marks)
    return [turn.prompt for turn in format.encode([messages])[0]]


def encode_answer(tokenizer: Any, answer: str) -> list[int]:
    """Ids of an answer, EOS included: what follows `encode_prompt`. Raises DataError if it holds a mark."""
    format = chat_format(tokenizer)
    messages: list[Message] = [{"role": "user", "content": "…"}, {"role": "assistant", "content": answer}]
    check_messages(messages, "assistant", format.marks)
    [[turn]] = format.encode([messages])
    assert turn.answer is not None
    return turn.answer
