"""Formats of dialogues: a raw row becomes one `Dialogue`, or several, or is skipped with a reason."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import DataError
from .fields import checked, field, text_field
from .reading import Skip, attempt
from .rows import Dialogue, Message, check_roles

ROLES = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "assistant": "assistant",
    "system": "system",
}


def messages_of(row: Mapping[str, Any], name: str, last: str) -> list[Message]:
    """Checked messages of a field that holds a list of {"role", "content"}, behind the row's `system`."""
    return usable(with_system(row, read_messages(row, name)), last)


def read_messages(row: Mapping[str, Any], name: str) -> list[Message]:
    """The messages of a field that holds a list of {"role", "content"}, in whatever order."""
    value = field(row, name, (list, tuple))
    if value is None:
        raise DataError(f"field {name!r} is missing; expected a list of messages")
    messages: list[Message] = []
    for message in value:
        if not isinstance(message, dict):
            raise DataError(
                f"field {name!r} holds {type(message).__name__}; expected messages with role, content"
            )
        messages.append(_message(text_field(message, "role"), text_field(message, "content")))
    return messages


def usable(messages: list[Message], last: str) -> list[Message]:
    """The messages, without a system message that says nothing.

    Raises DataError unless they alternate up to `last`, Skip where another one says nothing.
    """
    if messages and messages[0]["role"] == "system" and not messages[0]["content"].strip():
        messages = messages[1:]
    check_roles(messages, last)
    if any(not message["content"].strip() for message in messages):
        raise Skip("empty message")
    return messages


def _message(role: str, content: str) -> Message:
    if role not in ("system", "user", "assistant"):
        raise DataError(f"role {role!r}; expected system, user or assistant")
    return {"role": role, "content": content}  # type: ignore[typeddict-item]  # checked above


def single_turn(prompt: str, answer: str) -> Dialogue:
    """A dialogue of one question and one answer."""
    return answered({}, prompt, answer)


def answered(row: Mapping[str, Any], prompt: str, answer: str) -> Dialogue:
    """A dialogue of one question and one answer, behind the row's `system` and `history` if it has them."""
    said = with_system(row, [*history(row), *user(prompt), _message("assistant", answer)])
    return Dialogue(usable(said, "assistant"))


def user(text: str) -> list[Message]:
    """What a user says, as the only message."""
    return [_message("user", text)]


def with_system(row: Mapping[str, Any], messages: list[Message]) -> list[Message]:
    """The messages behind the row's `system`, if it has one. Raises DataError if they begin with another."""
    system = field(row, "system", str)
    if not system or not system.strip():
        return messages
    if not messages or messages[0]["role"] != "system":
        return [_message("system", system), *messages]
    if messages[0]["content"].strip() != system.strip():
        raise DataError("field 'system' says something else than the system message; expected one of them")
    return messages


def history(row: Mapping[str, Any]) -> list[Message]:
    """The earlier turns of a row, [[user, assistant], …] in its field `history`."""
    messages = []
    for turn in field(row, "history", (list, tuple)) or ():
        if not isinstance(turn, list | tuple) or [type(text) for text in turn] != [str, str]:
            raise DataError(f"field 'history' holds {turn!r:.60}; expected pairs [user, assistant] of texts")
        user, answer = (checked(text, "history") for text in turn)
        messages += [_message("user", user), _message("assistant", answer)]
    return messages


def with_input(instruction: str, given: str | None) -> str:
    """An instruction and the text that it is about, a blank line between."""
    return f"{instruction.strip()}\n\n{given.strip()}" if given and given.strip() else instruction


def messages(row: Mapping[str, Any]) -> Dialogue:
    """{"messages": [{"role", "content"}, …]}; beside it `system`, or `instruction` (Ghost Attention)."""
    said = messages_of(row, "messages", "assistant")
    instruction = field(row, "instruction", str) or None
    if instruction and said[0]["role"] == "system":
        raise DataError("both an 'instruction' and a system message; expected one of them")
    return Dialogue(said, instruction=instruction)


def prompt_completion(row: Mapping[str, Any]) -> Dialogue:
    """{"prompt", "completion"}, maybe `system`, `history`; a GPT end mark behind them is taken off."""
    return answered(row, *prompt_and_completion(row))


def prompt_and_completion(row: Mapping[str, Any]) -> tuple[str, str]:
    return text_field(row, "prompt"), text_field(row, "completion").removesuffix("<|endoftext|>")


def alpaca(row: Mapping[str, Any]) -> Dialogue:
    """{"instruction", "output"} and, where it has them, `input`, `system` and `history`."""
    prompt = with_input(text_field(row, "instruction"), field(row, "input", str))
    return answered(row, prompt, text_field(row, "output"))


def seed_tasks(row: Mapping[str, Any]) -> list[Dialogue | Skip]:
    """{"instruction", "instances": [{"input", "output"}, …]}: one dialogue an instance."""
    instances = field(row, "instances", (list, tuple))
    if not instances:
        raise DataError("field 'instances' is missing or empty; expected a list of {input, output}")
    instruction = text_field(row, "instruction")
    if not all(isinstance(given, dict) for given in instances):
        raise DataError("field 'instances' holds something else than objects; expected {input, output}")
    return [
        attempt(single_turn, with_input(instruction, field(given, "input", str)), text_field(given, "output"))
        for given in instances
    ]


def sharegpt(row: Mapping[str, Any]) -> Dialogue:
    """{"conversations": [{"from": human|gpt|system|…, "value"}, …]}, maybe `system`.

    Skipped if they don't alternate.
    """
    turns = field(row, "conversations", (list, tuple))
    if turns is None:
        raise DataError("field 'conversations' is missing; expected a list of {from, value}")
    said = with_system(row, [_sharegpt_message(turn) for turn in turns])
    if not _alternates(said):
        raise Skip("doesn't alternate from a question to an answer")
    return Dialogue(usable(said, "assistant"))


def _sharegpt_message(turn: Any) -> Message:
    if not isinstance(turn, dict):
        raise DataError(f"a turn is {type(turn).__name__}; expected {{from, value}}")
    role = ROLES.get(text_field(turn, "from"))
    if role is None:
        raise DataError(f"a turn is from {turn['from']!r}; expected one of {', '.join(ROLES)}")
    return _message(role, text_field(turn, "value"))


def _alternates(said: Sequence[Message]) -> bool:
    roles = [message["role"] for message in said]
    turns = roles[1:] if roles[:1] == ["system"] else roles
    return len(turns) > 0 and turns == ["user", "assistant"] * (len(turns) // 2)


def gsm8k(row: Mapping[str, Any]) -> Dialogue:
    """{"question", "answer"}; the marks for a calculator (<<6*7=42>>) are taken out of the answer."""
    return single_turn(text_field(row, "question"), without_calculator(text_field(row, "answer")))


def without_calculator(solution: str) -> str:
    """A GSM8K solution without its calculator marks."""
    return re.sub(r"<<[^<>]*>>", "", solution)
