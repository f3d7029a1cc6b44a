"""The tokenizer's own chat template: ids equal those of `transformers`, the mask that of a second encoder."""

from __future__ import annotations

import random
import re
from typing import Any

import pytest

from llamita.chat_format.encoding import encode_answer, encode_dialogue, encode_prompt, encode_questions
from llamita.chat_format.llama2 import CHAT_TEMPLATE
from llamita.data.rows import Dialogue, Message
from llamita.errors import DataError
from llamita.model.checkpoint import load_tokenizer

from ..helpers.chatml import CHATML, SPECIAL, chatml_tokenizer
from ..helpers.repository import SMOLLM

WORDS = [
    "hello",
    " ",
    "friend",
    "\n",
    "\n\n",
    "12",
    "é",
    "🤖",
    "?",
    " bolo",
    "  ",
    "\t",
    "<",
    "|",
    "[INST]",
    "日本",
]


@pytest.fixture(params=["small", pytest.param("SmolLM2", marks=pytest.mark.smollm)])
def chatml(request: pytest.FixtureRequest) -> Any:
    return chatml_tokenizer() if request.param == "small" else load_tokenizer(SMOLLM)


def chats(count: int, last: str) -> list[list[Message]]:
    """Contents are stripped: a line break at their start would be one token with that of the template."""
    draw = random.Random(0)
    made = []
    for _ in range(count):
        messages: list[Message] = []
        if draw.random() < 0.5:
            messages.append({"role": "system", "content": _content(draw)})
        for _ in range(draw.randint(1, 5)):
            messages.append({"role": "user", "content": _content(draw)})
            messages.append({"role": "assistant", "content": _content(draw)})
        made.append(messages if last == "assistant" else messages[:-1])
    return made


def _content(draw: random.Random) -> str:
    return "".join(draw.choices(WORDS, k=draw.randint(0, 8))).strip()


def slow_mask(tokenizer: Any, text: str) -> tuple[list[int], list[bool]]:
    """Ids of a ChatML text, and whether each is trained: piece by piece, the tags found by a regex."""
    ids, trained, role = [], [], ""
    for piece in re.split(r"(<\|im_start\|>(?:system|user|assistant)\n|<\|im_end\|>)", text):
        if piece.startswith("<|im_start|>"):
            role = piece[len("<|im_start|>") : -1]
            new = [tokenizer.convert_tokens_to_ids("<|im_start|>"), *_plain(tokenizer, f"{role}\n")]
            learned = False
        elif piece == "<|im_end|>":
            new, learned = [tokenizer.convert_tokens_to_ids(piece)], role == "assistant"
            role = ""
        else:
            new, learned = _plain(tokenizer, piece), role == "assistant"
        ids += new
        trained += [learned] * len(new)
    return ids, trained


def _plain(tokenizer: Any, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def test_ids_are_those_of_transformers(chatml: Any) -> None:
    for messages in chats(200, "assistant"):
        whole = chatml.apply_chat_template(messages, tokenize=False).removesuffix("\n")
        assert encode_dialogue(chatml, Dialogue(messages)).input_ids == _plain(chatml, whole)
    for messages in chats(200, "user"):
        given = chatml.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
        assert encode_prompt(chatml, messages) == given


def test_exactly_the_answers_are_trained(chatml: Any) -> None:
    for messages in chats(300, "assistant"):
        text = chatml.apply_chat_template(messages, tokenize=False).removesuffix("\n")
        ids, trained = slow_mask(chatml, text)
        encoded = encode_dialogue(chatml, Dialogue(messages))
        assert encoded.input_ids == ids
        assert encoded.labels == [id if learned else -100 for id, learned in zip(ids, trained, strict=True)]


def test_only_the_last_answer_is_trained(chatml: Any) -> None:
    [messages] = chats(1, "assistant")
    messages += [{"role": "user", "content": "what"}, {"role": "assistant", "content": "a bolo"}]
    labels = encode_dialogue(chatml, Dialogue(messages, trained="last")).labels
    assert chatml.decode([label for label in labels if label != -100]) == "a bolo<|im_end|>"


@pytest.mark.parametrize("answer", ["\nhello", "\n\n hello", " hello", "hello\n", ""])
def test_the_boundary_of_prompt_and_answer_does_not_depend_on_the_answer(chatml: Any, answer: str) -> None:
    question: Message = {"role": "user", "content": "what"}
    messages: list[Message] = [question, {"role": "assistant", "content": answer}, question]
    encoded = encode_dialogue(chatml, Dialogue(messages[:2]))
    assert chatml.decode([label for label in encoded.labels if label != -100]) == f"{answer}<|im_end|>"
    assert encoded.input_ids[: encoded.labels.count(-100)] == encode_prompt(chatml, messages[:1])
    text = chatml.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert chatml.decode(encode_prompt(chatml, messages)) == text


def test_turns_joined_are_the_whole_chat(chatml: Any) -> None:
    for messages in chats(50, "assistant"):
        system = messages.pop(0)["content"] if messages[0]["role"] == "system" else None
        questions = encode_questions(chatml, [message["content"] for message in messages[::2]], system)
        answers = [encode_answer(chatml, message["content"]) for message in messages[1::2]]
        parts = [ids for turn in zip(questions, answers, strict=True) for part in turn for ids in part]
        opening: list[Message] = [] if system is None else [{"role": "system", "content": system}]
        assert encode_dialogue(chatml, Dialogue([*opening, *messages])).input_ids == parts


@pytest.mark.parametrize("mark", SPECIAL)
def test_special_tokens_in_a_message_raise_an_error(mark: str) -> None:
    with pytest.raises(
        DataError, match=rf"a user message contains {re.escape(repr(mark))}.*'x{re.escape(mark)}'"
    ):
        encode_prompt(chatml_tokenizer(), [{"role": "user", "content": f"x{mark}"}])


UNUSABLE_TEMPLATES = {
    "rewrites": (
        CHATML.replace("message['content']", "(message['content'] if loop.last else '')"),
        "earlier turns differently",
    ),
    "no EOS": (
        CHATML.replace("<|im_end|>' + ", "|' + ").replace("<|im_end|>", "|"),
        "doesn't end answers with EOS",
    ),
    "refuses": ("{{ raise_exception('no system, please') }}", "rejects the messages: no system, please"),
}


@pytest.mark.parametrize("name", UNUSABLE_TEMPLATES)
def test_templates_that_cannot_be_trained(name: str) -> None:
    tokenizer = chatml_tokenizer()
    tokenizer.chat_template, reason = UNUSABLE_TEMPLATES[name]
    messages: list[Message] = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}] * 2
    with pytest.raises(DataError, match=reason):
        encode_dialogue(tokenizer, Dialogue(messages))


def test_a_tokenizer_without_template_or_eos() -> None:
    tokenizer = chatml_tokenizer()
    tokenizer.chat_template = None
    with pytest.raises(DataError, match=r"no chat template; use .* `chat_format: llama2`"):
        encode_prompt(tokenizer, [{"role": "user", "content": "a"}])
    tokenizer.eos_token = None
    with pytest.raises(DataError, match="no EOS token"):
        encode_prompt(tokenizer, [{"role": "user", "content": "a"}])


def test_llama2_format_with_a_tokenizer_that_puts_no_space_before_a_text(chatml: Any) -> None:
    chatml.chat_template = CHAT_TEMPLATE
    for messages in chats(200, "assistant"):
        for message in messages:
            message["content"] = message["content"].replace("[INST]", "")
        ids = chatml.apply_chat_template(messages, return_dict=False)
        encoded = encode_dialogue(chatml, Dialogue(messages))
        assert encoded.input_ids == ids
        trained = chatml.decode([label for label in encoded.labels if label != -100])
        answers = [message["content"].strip() for message in messages if message["role"] == "assistant"]
        assert trained == "".join(f" {answer} <|im_end|>" for answer in answers)
