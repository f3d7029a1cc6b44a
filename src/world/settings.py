"""Settings of the miniature world."""

from __future__ import annotations

from typing import ClassVar

from pydantic import PositiveInt

from ..config import StageSettings


class WorldSettings(StageSettings):
    """How much of each kind of data the world writes (rows)."""

    required_inputs: ClassVar[frozenset[str]] = frozenset()

    documents: PositiveInt = 20_000
    validation_documents: PositiveInt = 300
    demonstrations: PositiveInt = 8_000
    instructed: PositiveInt = 1_500
    multi_turn: PositiveInt = 600
    ghost_attention: PositiveInt = 1_200
    comparisons: PositiveInt = 8_000
    """of each kind, helpfulness and safety"""
    test_comparisons: PositiveInt = 1_000
    """of each kind, held out"""
    prompts: PositiveInt = 3_000
    test_ordinary: PositiveInt = 1_000
    test_harmful: PositiveInt = 500
    test_borderline: PositiveInt = 500
    test_dialogues: PositiveInt = 200
    test_turns: PositiveInt = 20
