"""A second BPE encoder, slow, in plain Python loops, as a reference for tests; shares no code with ours."""

from __future__ import annotations

import json
import unicodedata
from itertools import pairwise
from typing import Any

TAGS = ("[INST]", "[/INST]", "<<SYS>>", "<</SYS>>")


def units(text: str) -> list[str]:
    """Splits text into the pieces that no token may cross."""
    found = []
    while text:
        length = _unit(text)
        found.append(text[:length])
        text = text[length:]
    return found


def _unit(text: str) -> int:
    space = 1 if text[0] == " " else 0
    for tag in TAGS:
        if text[space:].startswith(tag):
            return space + len(tag)
    if text[0] == "\n" or _kind(text[0]) == "digit":
        return 1
    if space:
        spaces = _run(text, "space")
        if spaces > 1:
            return spaces - 1  # the last one belongs to what follows
        following = _kind(text[1]) if len(text) > 1 else "space"
        return 1 + _run(text[1:], following) if following in ("word", "sign") else 1
    return _run(text, _kind(text[0]))


def _kind(char: str) -> str:
    if char in " \n":
        return {" ": "space", "\n": "newline"}[char]
    category = unicodedata.category(char)[0]
    if char.isspace() and char not in "\x1c\x1d\x1e\x1f":
        return "white"
    return {"N": "digit", "L": "word", "M": "word"}.get(category, "sign")


def _run(text: str, kind: str) -> int:
    length = 0
    while length < len(text) and _kind(text[length]) == kind:
        length += 1
    return length


class SlowEncoder:
    """Encodes with the vocabulary and merges of a saved `tokenizer.json`."""

    def __init__(self, tokenizer_json: str) -> None:
        model: dict[str, Any] = json.loads(tokenizer_json)["model"]
        self.vocabulary: dict[str, int] = model["vocab"]
        self.ranks = {(left, right): rank for rank, (left, right) in enumerate(model["merges"])}

    def text(self, text: str) -> list[int]:
        return [id for unit in units(" " + text) for id in self.unit(unit)]

    def unit(self, unit: str) -> list[int]:
        parts: list[str] = []
        for char in unit:
            in_bytes = [f"<0x{byte:02X}>" for byte in char.encode()]
            parts += [char] if char in self.vocabulary else in_bytes
        while True:
            pairs = [(self.ranks.get(pair, 10**9), place) for place, pair in enumerate(pairwise(parts))]
            if not pairs or min(pairs)[0] == 10**9:
                return [self.vocabulary[part] for part in parts]
            place = min(pairs)[1]
            parts[place : place + 2] = [parts[place] + parts[place + 1]]

    def dialogue(self, messages: list[dict[str, str]]) -> list[int]:
        """Encodes a dialogue like the released Llama 2 code: each turn as one text between BOS and EOS."""
        messages = [{**message, "content": message["content"].strip()} for message in messages]
        if messages[0]["role"] == "system":
            system, first, *rest = messages
            content = f"<<SYS>>\n{system['content']}\n<</SYS>>\n\n{first['content']}"
            messages = [{"role": "user", "content": content}, *rest]
        ids: list[int] = []
        for prompt, answer in zip(messages[::2], messages[1::2], strict=False):
            ids += [1, *self.text(f"[INST] {prompt['content']} [/INST] {answer['content']} "), 2]
        if len(messages) % 2:
            ids += [1, *self.text(f"[INST] {messages[-1]['content']} [/INST]")]
        return ids
