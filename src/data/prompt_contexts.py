"""Adds system messages and earlier turns to prompts.

People give instructions and ask further questions; most public sets of ordinary prompts have neither. All
draws depend on the seed and the prompt's messages alone, so stages with one seed see the same prompts.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import replace

from .instructions import KINDS, draw_instruction
from .rows import Message, Prompt

MAX_EARLIER_TURNS = 2


def with_earlier_turns(prompt: Prompt, others: Sequence[Prompt], share: float, *, seed: int) -> Prompt:
    """Returns the prompt, with probability `share` after one or two other prompts and their answers.

    Only a plain prompt is changed. `others` are plain prompts with reference answers; the prompt itself may
    be among them, and is not used.
    """
    draw = _generator(prompt, "earlier_turns", seed)
    if prompt.context != "plain" or draw.random() >= share:
        return prompt
    drawn = draw.sample(others, min(MAX_EARLIER_TURNS + 1, len(others)))
    turns = draw.randint(1, MAX_EARLIER_TURNS)
    earlier: list[Message] = []
    for other in [other for other in drawn if other.messages != prompt.messages][:turns]:
        earlier += [*other.messages, {"role": "assistant", "content": other.answer or ""}]
    return replace(prompt, messages=[*earlier, *prompt.messages]) if earlier else prompt


def with_instruction(prompt: Prompt, share: float, *, seed: int) -> Prompt:
    """Returns the prompt, with probability `share` with a drawn instruction as its system message.

    The instruction is one of `data/instructions.py`; half of them are in their short form. `language` is set
    if it names one. A prompt that has a system message is not changed.
    """
    draw = _generator(prompt, "instructions", seed)
    if prompt.messages[0]["role"] == "system" or draw.random() >= share:
        return prompt
    instruction = draw_instruction(KINDS, draw)
    text = instruction.short if draw.random() < 0.5 else instruction.text
    return replace(
        prompt,
        messages=[{"role": "system", "content": text}, *prompt.messages],
        language=instruction.value if instruction.kind == "language" else prompt.language,
    )


def _generator(prompt: Prompt, name: str, seed: int) -> random.Random:
    return random.Random(f"{seed}/{name}/{json.dumps(prompt.messages, ensure_ascii=False)}")
