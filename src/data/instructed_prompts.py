"""Adds system messages to prompts: people give instructions, and public sets of prompts have none."""

from __future__ import annotations

import json
import random
from dataclasses import replace

from .instructions import KINDS, draw_instruction
from .rows import Prompt


def with_instruction(prompt: Prompt, share: float, seed: int) -> Prompt:
    """Returns the prompt, with probability `share` with a drawn instruction as its system message.

    The instruction is one of `data/instructions.py`; half of them are in their short form. `language` is set
    if it names one. A prompt that has a system message is not changed. The draws depend on the seed and the
    messages alone, so that all stages with one seed give a prompt the same instruction.
    """
    if prompt.messages[0]["role"] == "system":
        return prompt
    draw = random.Random(f"{seed}/instructions/{json.dumps(prompt.messages, ensure_ascii=False)}")
    if draw.random() >= share:
        return prompt
    instruction = draw_instruction(KINDS, draw)
    text = instruction.short if draw.random() < 0.5 else instruction.text
    return replace(
        prompt,
        messages=[{"role": "system", "content": text}, *prompt.messages],
        language=instruction.value if instruction.kind == "language" else prompt.language,
    )
