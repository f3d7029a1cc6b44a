"""Ghost Attention's views of a dialogue, and which of their tokens are trained."""

from __future__ import annotations

from typing import Any

import pytest

from llamita.chat_format.encoding import encode_answer, encode_dialogue, encode_prompt
from llamita.data.ghost_attention import instruction_on_every_turn, instruction_on_first_turn
from llamita.data.rows import Dialogue
from llamita.errors import DataError

MESSAGES: list[Any] = [
    {"role": "user", "content": "hi"},
    {"role": "assistant", "content": "ahoy"},
    {"role": "user", "content": "bye"},
    {"role": "assistant", "content": "ahoy again"},
]
DIALOGUE = Dialogue(MESSAGES, instruction="say ahoy")


def test_the_instruction_on_every_turn() -> None:
    contents = [message["content"] for message in instruction_on_every_turn(DIALOGUE).messages]
    assert contents == ["hi\n\nsay ahoy", "ahoy", "bye\n\nsay ahoy", "ahoy again"]


def test_the_instruction_on_the_first_turn_only(tokenizer: Any) -> None:
    augmented = instruction_on_first_turn(DIALOGUE)
    assert augmented.messages == [{"role": "system", "content": "say ahoy"}, *MESSAGES]
    encoded = encode_dialogue(tokenizer, augmented)
    prompt = encode_prompt(tokenizer, augmented.messages[:-1])
    assert encoded.labels == [-100] * len(prompt) + encode_answer(tokenizer, "ahoy again")
    assert tokenizer.decode(encoded.input_ids).count("say ahoy") == 1


def test_the_dialogue_itself_is_not_changed() -> None:
    instruction_on_every_turn(DIALOGUE)
    instruction_on_first_turn(DIALOGUE)
    assert DIALOGUE.messages[0] == {"role": "user", "content": "hi"}
    assert len(DIALOGUE.messages) == 4


def test_dialogues_that_cannot_be_augmented() -> None:
    for augment in (instruction_on_every_turn, instruction_on_first_turn):
        with pytest.raises(DataError, match="has no `instruction`"):
            augment(Dialogue(MESSAGES))
        with pytest.raises(DataError, match="in `messages`; move it to `instruction`"):
            augment(Dialogue([{"role": "system", "content": "x"}, *MESSAGES], instruction="y"))
