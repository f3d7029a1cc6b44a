"""Chats as token ids, with labels for the tokens that are trained (section 3.1).

The tokenizer determines the chat format: that of Llama 2 (`llama2.py`), or the one that its chat template
defines (`template.py`). Both encode a dialogue in pieces, prompts and answers alternating, exactly as it is
sampled, so training and inference use the same token ids.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ..data.intake import Check
from ..data.rows import Dialogue, Message, Turn, check_roles
from ..errors import DataError
from ..hashes import digest
from ..model.checkpoint import tokenizer_hash
from ..model.padding import UNTRAINED
from .llama2 import CHAT_TEMPLATE, Llama2Format
from .template import TemplateFormat


@dataclass(frozen=True)
class Encoded:
    """Token ids and labels of one dialogue, of equal length: a label is the id, or -100 if it is not trained.

    The label at t belongs to the token at t (the model shifts them); the first one is always -100.
    """

    input_ids: list[int]
    labels: list[int]


class ChatFormat(Protocol):
    """Converts chats to token ids.

    Attributes:
        control_strings: strings with a meaning in the format, which no message may contain.
    """

    control_strings: tuple[str, ...]

    def check(self, messages: Sequence[Message]) -> None:
        """Raises DataError for messages that the format can't write (apart from roles, control strings)."""

    def encode(self, chats: Sequence[Sequence[Message]]) -> list[list[Turn]]:
        """Returns the turns of each chat; the roles must alternate."""


def chat_format(tokenizer: Any) -> ChatFormat:
    """Returns the chat format of a tokenizer's chat template.

    Raises DataError for a tokenizer without a chat template or without an EOS token.
    """
    if tokenizer.eos_token_id is None:
        raise DataError(
            f"{_name(tokenizer)}: the tokenizer has no EOS token, with which every answer must end; "
            "set eos_token in its tokenizer_config.json"
        )
    if not tokenizer.chat_template:
        raise DataError(
            f"{_name(tokenizer)}: the tokenizer has no chat template; use a chat model, or fine-tune this "
            "one in the stage sft with `chat_format: llama2`"
        )
    return Llama2Format(tokenizer) if tokenizer.chat_template == CHAT_TEMPLATE else TemplateFormat(tokenizer)


def _name(tokenizer: Any) -> str:
    return str(getattr(tokenizer, "name_or_path", "")) or "the tokenizer"


def format_hash(tokenizer: Any) -> str:
    """A hash of all that determines the ids of a chat: the vocabulary, the template, the special tokens."""
    special = [tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id]
    return digest(
        [tokenizer_hash(tokenizer), tokenizer.chat_template, special, sorted(tokenizer.all_special_tokens)]
    )


def check_messages(messages: Sequence[Message], last: str, control_strings: Sequence[str]) -> None:
    """Raises DataError unless roles alternate, the last is `last`, and no message has a control string."""
    check_roles(messages, last)
    for message in messages:
        for control_string in control_strings:
            if control_string in message["content"]:
                raise DataError(
                    f"a {message['role']} message contains {control_string!r}, a control string of the "
                    f"model's chat format: {_excerpt(message['content'], control_string)!r}; remove it "
                    "from the text"
                )


def _excerpt(text: str, control_string: str) -> str:
    start = text.index(control_string)
    return text[max(0, start - 30) : start + len(control_string) + 30]


def check_of(tokenizer: Any) -> Check:
    """Returns a function that checks messages as `encode_dialogues` and `encode_prompt` do.

    Its second argument is the expected last role (user or assistant). Raises DataError for a tokenizer that
    has no chat format.
    """
    format = chat_format(tokenizer)

    def check(messages: Sequence[Message], last: str) -> None:
        check_messages(messages, last, format.control_strings)
        format.check(messages)

    return check


def remove_control_strings(text: str, control_strings: Sequence[str]) -> str:
    """Removes the control strings of a chat format, so that a sampled answer can become part of a prompt."""
    pattern = "|".join(map(re.escape, control_strings))
    while (cleaned := re.sub(pattern, "", text)) != text:  # the parts around one may form another
        text = cleaned
    return text


def encode_dialogues(tokenizer: Any, dialogues: Sequence[Dialogue]) -> list[Encoded]:
    """Returns ids and labels of dialogues; trained are the answers of `Dialogue.trained`, with their EOS.

    Raises DataError if roles don't alternate up to an answer, or a message contains a control string.
    """
    format = chat_format(tokenizer)
    for dialogue in dialogues:
        check_messages(dialogue.messages, "assistant", format.control_strings)
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
    """`encode_dialogues` for one dialogue."""
    return encode_dialogues(tokenizer, [dialogue])[0]


def encode_prompt(tokenizer: Any, messages: Sequence[Message]) -> list[int]:
    """Returns the ids of a whole prompt, up to the first token of the answer.

    Raises DataError if the last message is not the user's, or a message contains a control string.
    """
    return encode_prompts(tokenizer, [messages])[0]


def encode_prompts(tokenizer: Any, prompts: Sequence[Sequence[Message]]) -> list[list[int]]:
    """`encode_prompt` for several prompts, which is faster than one by one."""
    format = chat_format(tokenizer)
    for messages in prompts:
        check_messages(messages, "user", format.control_strings)
    return [
        [id for prompt, answer in turns for id in [*prompt, *(answer or ())]]
        for turns in format.encode(prompts)
    ]


def encode_questions(tokenizer: Any, questions: Sequence[str], system: str | None = None) -> list[list[int]]:
    """Returns the ids of each user turn of a dialogue whose answers are not sampled yet.

    A turn's ids are those between two answers: after one EOS, before the next answer.
    """
    messages: list[Message] = [] if system is None else [{"role": "system", "content": system}]
    for question in questions:
        messages += [{"role": "user", "content": question}, {"role": "assistant", "content": "…"}]
    format = chat_format(tokenizer)
    check_messages(messages, "assistant", format.control_strings)
    return [turn.prompt for turn in format.encode([messages])[0]]


def encode_answer(tokenizer: Any, answer: str) -> list[int]:
    """Returns the ids of an answer with its EOS, as they follow those of `encode_prompt`.

    Raises DataError if the answer contains a control string.
    """
    return encode_answers(tokenizer, [answer])[0]


def encode_answers(tokenizer: Any, answers: Sequence[str]) -> list[list[int]]:
    """`encode_answer` for several answers, which is faster than one by one."""
    format = chat_format(tokenizer)
    chats: list[list[Message]] = [
        [{"role": "user", "content": "…"}, {"role": "assistant", "content": answer}] for answer in answers
    ]
    for messages in chats:
        check_messages(messages, "assistant", format.control_strings)
    encoded = []
    for [turn] in format.encode(chats):
        assert turn.answer is not None
        encoded.append(turn.answer)
    return encoded
