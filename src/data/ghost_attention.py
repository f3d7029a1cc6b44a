"""Ghost Attention's two views of a dialogue that has an instruction (section 3.3).

For sampling, every user message contains the instruction. For training, only the first one does, and only
the last answer is trained.
"""

from __future__ import annotations

from dataclasses import replace

from ..errors import DataError
from .rows import Dialogue, Message


def instruction_on_every_turn(dialogue: Dialogue) -> Dialogue:
    """Appends the instruction to every user message, for sampling answers (step 2).

    A small model follows an instruction at the end of a message more often than one at its start.

    Raises DataError for a dialogue without an instruction.
    """
    instruction = _instruction(dialogue)
    messages: list[Message] = [
        {"role": "user", "content": f"{message['content']}\n\n{instruction}"}
        if message["role"] == "user"
        else message
        for message in dialogue.messages
    ]
    return replace(dialogue, messages=messages, instruction=None)


def instruction_on_first_turn(dialogue: Dialogue) -> Dialogue:
    """Makes the instruction the system message, and only the last answer trained (step 3).

    Raises DataError for a dialogue without an instruction.
    """
    system: Message = {"role": "system", "content": _instruction(dialogue)}
    return replace(dialogue, messages=[system, *dialogue.messages], trained="last", instruction=None)


def _instruction(dialogue: Dialogue) -> str:
    if not dialogue.instruction:
        raise DataError("the Ghost Attention dialogue has no `instruction`; add this field to its row")
    if dialogue.messages[0]["role"] == "system":
        raise DataError(
            "the Ghost Attention dialogue has a system message in `messages`; move it to `instruction`"
        )
    return dialogue.instruction
