"""Which sampled answers can be trained on."""

from __future__ import annotations

from collections.abc import Sequence

from ..chat_format.encoding import remove_control_strings


def is_usable(answer: str, finished: bool, control_strings: Sequence[str]) -> bool:
    """Whether an answer can be trained on: it ended with EOS, is not empty and contains no control string.

    Args:
        answer: text without surrounding spaces.
        control_strings: those of the chat format.
    """
    return bool(finished and answer and remove_control_strings(answer, control_strings) == answer)
