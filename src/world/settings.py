"""Settings of the miniature world."""

from __future__ import annotations

from typing import ClassVar

from pydantic import PositiveInt

from ..settings import StageSettings


class WorldSettings(StageSettings):
    """How much of each kind of data the world writes (rows)."""

    required_inputs: ClassVar[frozenset[str]] = frozenset()

    documents: PositiveInt = 20_000
    """of pretraining text"""
    validation_documents: PositiveInt = 300
    """of the same kinds, held out"""
    demonstrations: PositiveInt = 8_000
    """single-turn dialogues of mixed quality"""
    instructed: PositiveInt = 1_500
    """single-turn dialogues with a system message"""
    multi_turn: PositiveInt = 600
    """dialogues of 2 to 6 turns without any instruction"""
    ghost_attention: PositiveInt = 1_200
    """dialogues of 2 to 20 turns under an instruction, and the same without it"""
    comparisons: PositiveInt = 8_000
    """of each kind, helpfulness and safety"""
    test_comparisons: PositiveInt = 1_000
    """of each kind, held out"""
    prompts: PositiveInt = 3_000
    """for rejection sampling and PPO"""
    test_ordinary: PositiveInt = 1_000
    """test questions; these and the next two are all different"""
    test_harmful: PositiveInt = 500
    """test requests of the paper's risk categories"""
    test_borderline: PositiveInt = 500
    """their harmless look-alikes"""
    test_dialogues: PositiveInt = 200
    """of the retention test, with trained values and with unseen ones each"""
    test_turns: PositiveInt = 20
    """questions of each of them"""
