"""Formats of dialogues: converts a raw row to one or several `Dialogue`s, or skips it with a reason."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import DataError
from .fields import checked, field, text_field
from .reading import Skip, attempt
from .rows import Dialogue, Message, check_roles

NOT_ALTERNATING = "user and assistant don't alternate up to an answer"
ROLES = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "assistant": "assistant",
    "system": "system",
}


def messages_of(row: Mapping[str, Any], name: str, last: str) -> list[Message]:
    """Returns the row's `system` and the messages in a field, checked as in `usable_messages`."""
    return usable_messages(with_system(row, read_messages(row, name)), last)


def prompt_messages(row: Mapping[str, Any]) -> list[Message]:
    """Returns a prompt's messages: field `messages`, or the text `prompt` after `system` and `history`.

    Raises DataError for a row with `messages` and `history`, or with `messages` and a `prompt` that is
    neither their first user message nor the last one.
    """
    if row.get("messages") is not None or "prompt" not in row:
        messages = messages_of(row, "messages", "user")
        _check_repeated(row, [one["content"].strip() for one in messages if one["role"] == "user"])
        return messages
    turns = [*history(row), *user_message(text_field(row, "prompt"))]
    return usable_messages(with_system(row, turns), "user")


def _check_repeated(row: Mapping[str, Any], said: list[str]) -> None:
    """Checks the fields beside `messages` that repeat a part of them; `said`: their user messages."""
    if history(row):
        raise DataError("the row has both 'messages' and 'history'; keep one of them")
    prompt = field(row, "prompt", str)
    if prompt and prompt.strip() not in (said[0], said[-1]):
        raise DataError(
            "field 'prompt' is neither the first user message nor the last one; keep 'messages' or 'prompt'"
        )


def read_messages(row: Mapping[str, Any], name: str) -> list[Message]:
    """Returns the messages of a field with a list of {"role", "content"}; does not check their order."""
    value = field(row, name, (list, tuple))
    if value is None:
        raise DataError(f"field {name!r} is missing; expected a list of messages")
    messages: list[Message] = []
    for message in value:
        if not isinstance(message, dict):
            raise DataError(
                f"field {name!r} contains {type(message).__name__}; expected objects {{role, content}}"
            )
        messages.append(_message(text_field(message, "role"), text_field(message, "content")))
    return messages


def usable_messages(messages: list[Message], last: str) -> list[Message]:
    """Returns the messages, without an empty system message.

    Raises DataError unless roles alternate and the last is `last`, Skip if another message is empty.
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
    """Returns a dialogue of one prompt and one answer."""
    return with_context({}, prompt, answer)


def with_context(row: Mapping[str, Any], prompt: str, answer: str) -> Dialogue:
    """Returns a dialogue of the row's `system` and `history`, if it has them, one prompt and one answer."""
    messages = with_system(row, [*history(row), *user_message(prompt), _message("assistant", answer)])
    return Dialogue(usable_messages(messages, "assistant"))


def user_message(text: str) -> list[Message]:
    """Returns a list of one user message."""
    return [_message("user", text)]


def with_system(row: Mapping[str, Any], messages: list[Message]) -> list[Message]:
    """Puts the row's `system`, if any, before messages. Raises DataError if they begin with another one."""
    system = field(row, "system", str)
    if not system or not system.strip():
        return messages
    if not messages or messages[0]["role"] != "system":
        return [_message("system", system), *messages]
    if messages[0]["content"].strip() != system.strip():
        raise DataError("field 'system' differs from the system message in the messages; keep one of them")
    return messages


def history(row: Mapping[str, Any]) -> list[Message]:
    """Returns the earlier turns of a row, [[user, assistant], …] in its field `history`."""
    messages = []
    for turn in field(row, "history", (list, tuple)) or ():
        if not isinstance(turn, list | tuple) or [type(text) for text in turn] != [str, str]:
            raise DataError(f"field 'history' contains {turn!r:.60}; expected [user, assistant], both texts")
        user, answer = (checked(text, "history") for text in turn)
        messages += [_message("user", user), _message("assistant", answer)]
    return messages


def with_input(instruction: str, input_text: str | None) -> str:
    """Returns an instruction followed by its input, if any, with a blank line between them."""
    return (
        f"{instruction.strip()}\n\n{input_text.strip()}" if input_text and input_text.strip() else instruction
    )


def messages(row: Mapping[str, Any]) -> Dialogue:
    """Converts {"messages": [{"role", "content"}, …]}, optionally `system` or (for GAtt) `instruction`."""
    turns = messages_of(row, "messages", "assistant")
    instruction = field(row, "instruction", str)
    if not instruction or not instruction.strip():
        return Dialogue(turns)
    if turns[0]["role"] == "system":
        raise DataError("the row has both an 'instruction' and a system message; keep one of them")
    return Dialogue(turns, instruction=instruction)


def prompt_completion(row: Mapping[str, Any]) -> Dialogue:
    """Converts {"prompt", "completion"}, optionally `system`, `history`; removes a final "<|endoftext|>"."""
    return with_context(row, *prompt_and_completion(row))


def prompt_and_completion(row: Mapping[str, Any]) -> tuple[str, str]:
    return text_field(row, "prompt"), text_field(row, "completion").removesuffix("<|endoftext|>")


def alpaca(row: Mapping[str, Any]) -> Dialogue:
    """Converts {"instruction", "output"}, optionally `input`, `system`, `history`."""
    prompt = with_input(text_field(row, "instruction"), field(row, "input", str))
    return with_context(row, prompt, text_field(row, "output"))


def seed_tasks(row: Mapping[str, Any]) -> list[Dialogue | Skip]:
    """Converts {"instruction", "instances": [{"input", "output"}, …]} to one dialogue per instance."""
    instances = field(row, "instances", (list, tuple))
    if not instances:
        raise DataError("field 'instances' is missing or empty; expected a list of {input, output}")
    instruction = text_field(row, "instruction")
    if not all(isinstance(instance, dict) for instance in instances):
        raise DataError("field 'instances' contains values that are not objects; expected {input, output}")
    return [
        attempt(
            single_turn,
            with_input(instruction, field(instance, "input", str)),
            text_field(instance, "output"),
        )
        for instance in instances
    ]


def sharegpt(row: Mapping[str, Any]) -> Dialogue:
    """Converts {"conversations": [{"from": human|gpt|system|…, "value"}, …]}, optionally `system`.

    Raises Skip if user and assistant don't alternate.
    """
    turns = field(row, "conversations", (list, tuple))
    if turns is None:
        raise DataError("field 'conversations' is missing; expected a list of {from, value}")
    messages = with_system(row, [_sharegpt_message(turn) for turn in turns])
    if not _alternates(messages):
        raise Skip(NOT_ALTERNATING)
    return Dialogue(usable_messages(messages, "assistant"))


def _sharegpt_message(turn: Any) -> Message:
    if not isinstance(turn, dict):
        raise DataError(
            f"field 'conversations' contains {type(turn).__name__}; expected objects {{from, value}}"
        )
    role = ROLES.get(text_field(turn, "from"))
    if role is None:
        raise DataError(f"field 'from' of a turn is {turn['from']!r}; expected one of {', '.join(ROLES)}")
    return _message(role, text_field(turn, "value"))


def _alternates(messages: Sequence[Message]) -> bool:
    roles = [message["role"] for message in messages]
    turns = roles[1:] if roles[:1] == ["system"] else roles
    return len(turns) > 0 and turns == ["user", "assistant"] * (len(turns) // 2)


def gsm8k(row: Mapping[str, Any]) -> Dialogue:
    """Converts {"question", "answer"}; removes calculator annotations (<<6*7=42>>) from the answer."""
    return single_turn(text_field(row, "question"), without_calculator(text_field(row, "answer")))


def without_calculator(solution: str) -> str:
    """Returns a GSM8K solution without its calculator annotations."""
    return re.sub(r"<<[^<>]*>>", "", solution)
