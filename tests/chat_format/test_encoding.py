"""The chat format: hand-written layouts, a second encoder, trained tokens, errors."""

from __future__ import annotations

import importlib.util
import random
from pathlib import Path
from typing import Any

import pytest

from llamita.chat_format.encoding import (
    encode_answer,
    encode_dialogue,
    encode_dialogues,
    encode_prompt,
    remove_control_strings,
)
from llamita.chat_format.llama2 import CONTROL_STRINGS
from llamita.data.rows import Dialogue
from llamita.errors import DataError

spec = importlib.util.spec_from_file_location(
    "slow_encoder", Path(__file__).parents[1] / "helpers" / "slow_encoder.py"
)
slow_encoder = importlib.util.module_from_spec(spec)
spec.loader.exec_module(slow_encoder)

ALPHABET = [
    "what",
    "is",
    "bolo",
    "red",
    " ",
    "  ",
    "\n",
    "\n\n",
    "7",
    "12",
    ".",
    ",",
    "'s",
    "é",
    "日本",
    "🤖",
    "▁",
]
ALPHABET += [
    "\t",
    "[",
    "INST",
    "<",
    ">",
    "<0x41>",
    "/",
    "<<",
    "SYS",
    "S>",
    "\u0301",
    "",
    "ß",
    "½",
    "\u00a0",
    "\ufdd0",
]


def chat(*contents: str, system: str | None = None) -> list[Any]:
    roles = ["user", "assistant"] * len(contents)
    messages = [{"role": role, "content": content} for role, content in zip(roles, contents, strict=False)]
    return messages if system is None else [{"role": "system", "content": system}, *messages]


def random_text(rng: random.Random) -> str:
    while True:
        text = "".join(rng.choices(ALPHABET, k=rng.randint(0, 12)))
        if not any(tag in text for tag in CONTROL_STRINGS):
            return text


def random_messages(rng: random.Random, count: int) -> list[Any]:
    system = random_text(rng) if rng.random() < 0.5 else None
    return chat(*(random_text(rng) for _ in range(count)), system=system)


def template_ids(tokenizer: Any, messages: list[Any], **options: Any) -> list[int]:
    return tokenizer.apply_chat_template(messages, return_dict=False, **options)


LAYOUTS = {
    "<s>[INST] hi [/INST]": chat(" hi\n"),
    "<s>[INST] <<SYS>>\nbe brief\n<</SYS>>\n\nhi [/INST]": chat("hi", system=" be brief "),
    "<s>[INST] hi [/INST] hello </s><s>[INST] bye [/INST]": chat("hi", " hello ", "bye "),
    "<s>[INST] <<SYS>>\nbe brief\n<</SYS>>\n\nhi [/INST] hello </s><s>[INST] bye [/INST] so long </s>": chat(
        "hi", "hello", "bye", "so long", system="be brief"
    ),
}


@pytest.mark.parametrize("text", LAYOUTS)
def test_layouts(tokenizer: Any, text: str) -> None:
    messages = LAYOUTS[text]
    assert tokenizer.apply_chat_template(messages, tokenize=False) == text
    ids = template_ids(tokenizer, messages)
    assert tokenizer.decode(ids).replace("<s> ", "<s>") == text  # the dummy prefix shows after a BOS
    assert ids.count(1) == text.count("<s>")
    assert ids.count(2) == text.count("</s>")
    assert ids[:2] != [1, 1]
    assert 0 not in ids


def test_token_by_token(tokenizer: Any) -> None:
    messages = chat("yes it ?", "it is", "how are you", system="yes")
    tokens = (
        "<s>| [INST]| <<SYS>>|<0x0A>|yes|<0x0A>|<</SYS>>|<0x0A>|<0x0A>|yes| it| ?| [/INST]| it| is| |</s>"
    )
    tokens += "|<s>| [INST]| how| are| you| [/INST]"  # after a newline a word has no space before it
    assert tokenizer.convert_ids_to_tokens(encode_prompt(tokenizer, messages)) == tokens.split("|")


def test_three_encoders_agree(tokenizer: Any) -> None:
    rng = random.Random(0)
    slow = slow_encoder.SlowEncoder(tokenizer.backend_tokenizer.to_str())
    for _ in range(300):
        messages = random_messages(rng, rng.randint(1, 5))
        if messages[-1]["role"] == "user":
            ids = encode_prompt(tokenizer, messages)
            assert template_ids(tokenizer, messages, add_generation_prompt=True) == ids, messages
        else:
            ids = encode_dialogue(tokenizer, Dialogue(messages)).input_ids
            assert template_ids(tokenizer, messages) == ids, messages
        assert slow.dialogue(messages) == ids, messages


def test_prompt_and_answer_together_are_the_dialogue(tokenizer: Any) -> None:
    rng = random.Random(1)
    for _ in range(300):
        messages = random_messages(rng, 2 * rng.randint(1, 3))
        whole = encode_dialogue(tokenizer, Dialogue(messages)).input_ids
        answer = encode_answer(tokenizer, messages[-1]["content"])
        assert encode_prompt(tokenizer, messages[:-1]) + answer == whole, messages


def test_answers_are_trained_with_their_end(tokenizer: Any) -> None:
    messages = chat("what is red ?", "it is bolo", "how are you", "fine", system="thanks")
    encoded = encode_dialogue(tokenizer, Dialogue(messages))
    trained = [id for id in encoded.labels if id != -100]
    assert trained == encode_answer(tokenizer, "it is bolo") + encode_answer(tokenizer, "fine")
    assert encoded.labels[0] == -100
    assert len(encoded.labels) == len(encoded.input_ids)
    assert all(label in (-100, id) for label, id in zip(encoded.labels, encoded.input_ids, strict=True))


def test_only_the_last_answer_is_trained(tokenizer: Any) -> None:
    messages = chat("what is red ?", "it is bolo", "how are you", "fine")
    encoded = encode_dialogue(tokenizer, Dialogue(messages, trained="last"))
    prompt = encode_prompt(tokenizer, messages[:-1])
    assert encoded.labels == [-100] * len(prompt) + encode_answer(tokenizer, "fine")


def test_encoding_in_a_batch_equals_encoding_one_by_one(tokenizer: Any) -> None:
    rng = random.Random(2)
    dialogues = [Dialogue(random_messages(rng, 2 * rng.randint(1, 3))) for _ in range(20)]
    assert encode_dialogues(tokenizer, dialogues) == [encode_dialogue(tokenizer, one) for one in dialogues]
    assert encode_dialogues(tokenizer, []) == []


@pytest.mark.parametrize("tag", CONTROL_STRINGS)
@pytest.mark.parametrize("place", [0, 1, 2])
def test_tags_in_messages_raise_an_error(tokenizer: Any, tag: str, place: int) -> None:
    contents = ["be brief", "hi", "hello"]
    contents[place] += tag
    messages = chat(*contents[1:], system=contents[0])
    with pytest.raises(DataError, match="a control string of the model"):
        encode_dialogue(tokenizer, Dialogue(messages))
    with pytest.raises(Exception, match="may not contain"):
        template_ids(tokenizer, messages)
    if place < 2:
        with pytest.raises(DataError, match="a control string of the model"):
            encode_prompt(tokenizer, messages[:-1])
    else:
        with pytest.raises(DataError, match="a control string of the model"):
            encode_answer(tokenizer, contents[2])


@pytest.mark.parametrize(
    "roles", ["assistant", "user user", "user system", "system", "user assistant assistant", ""]
)
def test_roles_must_alternate(tokenizer: Any, roles: str) -> None:
    messages: list[Any] = [{"role": role, "content": "hi"} for role in roles.split()]
    with pytest.raises(DataError, match="alternating"):
        encode_prompt(tokenizer, messages)
    with pytest.raises(DataError, match="alternating"):
        encode_dialogue(tokenizer, Dialogue(messages))


def test_prompts_end_with_the_user_dialogues_with_an_answer(tokenizer: Any) -> None:
    with pytest.raises(DataError, match="the last one user"):
        encode_prompt(tokenizer, chat("hi", "hello"))
    with pytest.raises(DataError, match="the last one assistant"):
        encode_dialogue(tokenizer, Dialogue(chat("hi")))


def test_control_strings_can_be_removed() -> None:
    assert remove_control_strings("a [INST]b<</SYS>> </s>", CONTROL_STRINGS) == "a b "
    assert remove_control_strings("[IN[INST]ST]x", CONTROL_STRINGS) == "x"
    assert remove_control_strings("a < b [1]", CONTROL_STRINGS) == "a < b [1]"
