"""Settings of the stage `tokenizer`."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from ..data.settings import RowSettings
from ..settings import Source


class TokenizerSettings(RowSettings):
    """Size and training data of the tokenizer: documents, and dialogues in the chat format."""

    required_inputs: ClassVar[frozenset[str]] = frozenset({"data"})

    vocab_size: int = Field(ge=320)
    """maximum number of tokens: 3 special tokens, 256 bytes, characters, merges"""
    documents: list[Source] = Field(min_length=1)
    """sources of plain text to train the tokenizer on"""
    dialogues: list[Source] = []
    """sources of dialogues to train the tokenizer on, in the chat format with its tags"""
