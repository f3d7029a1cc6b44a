"""What a judge reads: dialogues as text, inserted into a template."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from ..data.rows import Message


def dialogue_text(messages: Sequence[Message]) -> str:
    """Returns a prompt as text: a single user message as it is, others with their roles."""
    if len(messages) == 1:
        return messages[0]["content"]
    return "\n\n".join(f"{message['role'].capitalize()}: {message['content']}" for message in messages)


def fill(template: str, texts: Mapping[str, str]) -> str:
    """Replaces placeholders in a template; those that occur in the inserted texts stay."""
    pattern = "|".join(map(re.escape, texts))
    return re.sub(pattern, lambda match: texts[match[0]], template)
