"""The chat format of Llama 2: text, token ids, and which of them are trained (section 3.1).

    <s>[INST] <<SYS>>\n{system}\n<</SYS>>\n\n{user} [/INST] {answer} </s><s>[INST] {user} [/INST] …

Every turn begins with its own BOS and ends with EOS; the system message goes inside the first user message;
contents are stripped. The tags are plain text, so contents that hold one are refused, as in the released
code. A turn is tokenized in two pieces, prompt and answer: the tokenizer keeps "[/INST]" apart and puts a
space before each text ("dummy prefix"), so the pieces give the same ids as the whole.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import DataError
from .rows import Dialogue, Message

B_INST, E_INST = "[INST]", "[/INST]"
B_SYS, E_SYS = "<<SYS>>", "<</SYS>>"
TAGS = (B_INST, E_INST, B_SYS, E_SYS)
UNK, BOS, EOS = "<unk>", "<s>", "</s>"
REFUSED = (*TAGS, UNK, BOS, EOS)
UNTRAINED = -100  # label of a token that takes no part in the loss

# `raise_exception` and the whitespace control are Hugging Face's; the ids equal those of `encode_dialogue`
CHAT_TEMPLATE = """\
{%- if messages[0]['role'] == 'system' -%}
    {%- set system = '<<SYS>>\\n' + messages[0]['content'].strip() + '\\n<</SYS>>\\n\\n' -%}
    {%- set turns = messages[1:] -%}
{%- else -%}
    {%- set system = '' -%}
    {%- set turns = messages -%}
{%- endif -%}
{%- for message in turns -%}
    {%- if message['role'] != ('user' if loop.index0 % 2 == 0 else 'assistant') -%}
        {{- raise_exception('Roles must alternate: an optional system message, then user, assistant, …') -}}
    {%- endif -%}
    {%- for tag in ['[INST]', '[/INST]', '<<SYS>>', '<</SYS>>', '<unk>', '<s>', '</s>'] -%}
        {%- if tag in message['content'] or tag in messages[0]['content'] -%}
            {{- raise_exception('A message may not contain ' + tag) -}}
        {%- endif -%}
    {%- endfor -%}
    {%- if message['role'] == 'user' -%}
        {%- set user = (system if loop.first else '') + message['content'].strip() -%}
        {{- bos_token + '[INST] ' + user + ' [/INST]' -}}
    {%- else -%}
        {{- ' ' + message['content'].strip() + ' ' + eos_token -}}
    {%- endif -%}
{%- endfor -%}"""


@dataclass(frozen=True)
class Encoded:
    """Token ids and labels of one dialogue, equally long: the label is the id itself, or -100 if untrained.

    The label at t belongs to the token at t (the model shifts them); the first one is always -100.
    """

    input_ids: list[int]
    labels: list[int]


def check_messages(messages: Sequence[Message], last: str) -> None:
    """Raises DataError unless roles alternate up to `last` (user or assistant) and no content holds a tag."""
    turns = messages[1:] if messages and messages[0]["role"] == "system" else messages
    roles = [message["role"] for message in turns]
    expected = ["user" if index % 2 == 0 else "assistant" for index in range(len(roles))]
    if roles != expected or not roles or roles[-1] != last:
        raise DataError(
            f"roles are {', '.join(m['role'] for m in messages) or 'missing'}; expected an optional system "
            f"message, then user and assistant in turn, ending with {last}"
        )
    for message in messages:
        for tag in REFUSED:
            if tag in message["content"]:
                raise DataError(f"a {message['role']} message contains {tag!r}, which marks the chat format")


def without_tags(text: str) -> str:
    """Text with the marks of the chat format taken out, for what a model wrote and is to be shown again."""
    pattern = "|".join(map(re.escape, REFUSED))
    while (cleaned := re.sub(pattern, "", text)) != text:  # what is left may join to a new tag
        text = cleaned
    return text


def turn_texts(messages: Sequence[Message]) -> Iterator[tuple[str, str | None]]:
    """Each turn as (prompt text, answer text or None), without BOS, EOS and the space that tokenizers add.

    Raises DataError as `check_messages`.
    """
    check_messages(messages, messages[-1]["role"] if messages else "user")
    system = ""
    if messages[0]["role"] == "system":
        system = f"{B_SYS}\n{messages[0]['content'].strip()}\n{E_SYS}\n\n"
        messages = messages[1:]
    for index in range(0, len(messages), 2):
        answer = messages[index + 1]["content"] if index + 1 < len(messages) else None
        user = messages[index]["content"].strip()
        yield f"{B_INST} {system}{user} {E_INST}", None if answer is None else f"{answer.strip()} "
        system = ""


def encode_dialogues(tokenizer: Any, dialogues: Sequence[Dialogue]) -> list[Encoded]:
    """Ids and labels of dialogues; the answers that each wants trained are, their EOS included.

    Raises DataError where roles don't alternate up to an answer, or a content holds a tag.
    """
    turns = []
    for dialogue in dialogues:
        check_messages(dialogue.messages, last="assistant")
        turns.append(list(turn_texts(dialogue.messages)))
    pieces = [str(piece) for dialogue_turns in turns for turn in dialogue_turns for piece in turn]
    ids = iter(tokenizer(pieces, add_special_tokens=False)["input_ids"] if pieces else ())
    encoded = []
    for dialogue, dialogue_turns in zip(dialogues, turns, strict=True):
        input_ids: list[int] = []
        labels: list[int] = []
        for index in range(len(dialogue_turns)):
            prompt = [tokenizer.bos_token_id, *next(ids)]
            answer = [*next(ids), tokenizer.eos_token_id]
            trained = dialogue.trained == "all" or index == len(dialogue_turns) - 1
            input_ids += prompt + answer
            labels += [UNTRAINED] * len(prompt) + (answer if trained else [UNTRAINED] * len(answer))
        encoded.append(Encoded(input_ids, labels))
    return encoded


def encode_dialogue(tokenizer: Any, dialogue: Dialogue) -> Encoded:
    """`encode_dialogues` for one."""
    return encode_dialogues(tokenizer, [dialogue])[0]


def encode_prompt(tokenizer: Any, messages: Sequence[Message]) -> list[int]:
    """Ids from the first BOS to the last [/INST] of messages that end with the user's.

    Raises DataError where they don't, or a content holds a tag.
    """
    check_messages(messages, last="user")
    *turns, (last, _) = turn_texts(messages)
    ids = []
    for prompt, answer in turns:
        ids += [tokenizer.bos_token_id, *_ids(tokenizer, prompt)]
        ids += [*_ids(tokenizer, str(answer)), tokenizer.eos_token_id]
    return [*ids, tokenizer.bos_token_id, *_ids(tokenizer, last)]


def encode_answer(tokenizer: Any, answer: str) -> list[int]:
    """Ids of an answer, EOS included: what follows `encode_prompt`. Raises DataError if it holds a tag."""
    check_messages([{"role": "user", "content": ""}, {"role": "assistant", "content": answer}], "assistant")
    return [*_ids(tokenizer, f"{answer.strip()} "), tokenizer.eos_token_id]


def _ids(tokenizer: Any, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"]
