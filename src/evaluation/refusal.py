"""Detects refusals in real text by phrases that chat models use: an approximation without ground truth."""

from __future__ import annotations

import re

PHRASES = (
    r"i (can't|cannot|can not|won't|will not)",
    r"i('m| am) (unable|not (able|sure|familiar|comfortable|qualified))",
    r"i (don't|do not) (think|know|understand|feel comfortable)",
    r"i('m| am) sorry,? (but )?i",
    r"(as|i'm|i am) an (ai|assistant|language model)",
    r"i (must|have to) (decline|refuse)",
    r"(it is|it's|would be) not (appropriate|ethical|legal)",
)
_REFUSAL = re.compile(rf"\b({'|'.join(PHRASES)})")
_OPENING = 200
"""Number of characters that are searched; later in a text such phrases are mostly part of an answer."""


def is_refusal(answer: str) -> bool:
    """Returns whether an answer begins with a refusal, or an evasion such as "I'm not sure"."""
    return bool(_REFUSAL.search(answer[:_OPENING].lower().replace("\u2019", "'")))
