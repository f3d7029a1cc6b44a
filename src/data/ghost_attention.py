"""Ghost Attention's two views of a dialogue that has an instruction (section 3.3).

Answers are sampled with the instruction on every user message; trained is the dialogue that states it once,
at the start, and only on its last answer.
"""

from __future__ import annotations

from dataclasses import replace

from ..errors import DataError
from .rows import Dialogue, Message


def instruction_on_every_turn(dialogue: Dialogue) -> Dialogue:
    """The instruction put behind every user message: what answers are sampled from (step 2).

    Behind it, a small model keeps to it more often than before it.

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
    """The instruction as system message of the first turn, the last answer alone trained (step 3).

    Raises DataError for a dialogue without an instruction.
    """
    system: Message = {"role": "system", "content": _instruction(dialogue)}
    return replace(dialogue, messages=[system, *dialogue.messages], trained="last", instruction=None)


def _instruction(dialogue: Dialogue) -> str:
    if not dialogue.instruction:
        raise DataError("a Ghost Attention dialogue needs an `instruction`")
    if dialogue.messages[0]["role"] == "system":
        raise DataError(
            "a Ghost Attention dialogue has its system message as `instruction`, not in `messages`"
        )
    return dialogue.instruction
