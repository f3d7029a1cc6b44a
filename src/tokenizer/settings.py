"""Settings of the stage `tokenizer`."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from ..data.settings import RowSettings
from ..settings import Source


class TokenizerSettings(RowSettings):
    """What the tokenizer is trained on: text, and dialogues spelled in the chat format."""

    required_inputs: ClassVar[frozenset[str]] = frozenset({"data"})

    vocab_size: int = Field(ge=320)
    """at most: 3 special tokens, 256 bytes, characters, merges"""
    documents: list[Source] = Field(min_length=1)
    """plain text"""
    dialogues: list[Source] = []
    """spelled in the chat format, tags included"""
