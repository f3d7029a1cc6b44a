"""The chat format of Llama 2 (appendix A.3.3 of the released code's README, section 3.3).

    <s>[INST] <<SYS>>\n{system}\n<</SYS>>\n\n{user} [/INST] {answer} </s><s>[INST] {user} [/INST] …

Every turn begins with its own BOS and ends with EOS; the system message is placed inside the first user
message; message contents are stripped. The tags are plain text, so messages that contain one raise an error,
as in the released code. A turn is tokenized in two pieces, prompt and answer: Llama's tokenizer never merges
"[/INST]" with other text and prepends a space to each text ("dummy prefix"), so the pieces have the same ids
as the whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from ..data.rows import Message, Turn
from ..errors import DataError

B_INST, E_INST = "[INST]", "[/INST]"
B_SYS, E_SYS = "<<SYS>>", "<</SYS>>"
TAGS = (B_INST, E_INST, B_SYS, E_SYS)
UNK, BOS, EOS = "<unk>", "<s>", "</s>"
CONTROL_STRINGS = (*TAGS, UNK, BOS, EOS)

# Uses Hugging Face's `raise_exception` and whitespace control; the ids equal those of `Llama2Format`
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


class Llama2Format:
    """Llama 2's format with any tokenizer; for one without a dummy prefix the text contains the space."""

    def __init__(self, tokenizer: Any) -> None:
        if tokenizer.bos_token_id is None:
            raise DataError(
                "the tokenizer has no BOS token, with which every turn of Llama 2's format begins; use the "
                "model's own chat template (without `chat_format: llama2`)"
            )
        self._tokenizer = tokenizer
        self.control_strings = tuple(dict.fromkeys([*CONTROL_STRINGS, *tokenizer.all_special_tokens]))
        [first, *_] = tokenizer.tokenize("a", add_special_tokens=False)
        self._space = "" if first[0] in "▁Ġ " else " "

    def check(self, messages: Sequence[Message]) -> None:
        """Does nothing: the format can write all messages with alternating roles."""

    def encode(self, chats: Sequence[Sequence[Message]]) -> list[list[Turn]]:
        """Returns the turns of each chat: prompts from BOS to [/INST], answers from there to EOS."""
        texts = [list(turn_texts(chat)) for chat in chats]
        pieces = []
        for prompt, answer in (turn for chat in texts for turn in chat):
            pieces += [prompt] if answer is None else [prompt, self._space + answer]
        ids = iter(self._tokenizer(pieces, add_special_tokens=False)["input_ids"] if pieces else ())
        before, after = [self._tokenizer.bos_token_id], [self._tokenizer.eos_token_id]
        return [
            [Turn(before + next(ids), None if answer is None else next(ids) + after) for _, answer in chat]
            for chat in texts
        ]


def turn_texts(messages: Sequence[Message]) -> Iterator[tuple[str, str | None]]:
    """Yields turns as (prompt text, answer text or None), without BOS, EOS and dummy prefix."""
    system = ""
    if messages[0]["role"] == "system":
        system = f"{B_SYS}\n{messages[0]['content'].strip()}\n{E_SYS}\n\n"
        messages = messages[1:]
    for index in range(0, len(messages), 2):
        answer = messages[index + 1]["content"] if index + 1 < len(messages) else None
        user = messages[index]["content"].strip()
        yield f"{B_INST} {system}{user} {E_INST}", None if answer is None else f"{answer.strip()} "
        system = ""
