"""Settings of the miniature world."""

from __future__ import annotations

from typing import ClassVar

from pydantic import PositiveInt

from ..settings import StageSettings


class WorldSettings(StageSettings):
    """Number of rows of each kind of data in the world."""

    required_inputs: ClassVar[frozenset[str]] = frozenset()

    documents: PositiveInt = 20_000
    """number of training documents for pretraining"""
    validation_documents: PositiveInt = 300
    """number of held-out documents for pretraining"""
    demonstrations: PositiveInt = 8_000
    """number of single-turn dialogues with answers of mixed quality"""
    instructed: PositiveInt = 1_500
    """number of single-turn dialogues with a system message"""
    multi_turn: PositiveInt = 600
    """number of dialogues of 2 to 6 turns without instruction"""
    ghost_attention: PositiveInt = 1_200
    """number of dialogues of 2 to 20 turns with an instruction, each also written without it"""
    comparisons: PositiveInt = 8_000
    """number of comparisons of each kind, helpfulness and safety"""
    test_comparisons: PositiveInt = 1_000
    """number of held-out comparisons of each kind"""
    prompts: PositiveInt = 3_000
    """number of prompts for rejection sampling and PPO"""
    test_ordinary: PositiveInt = 1_000
    """number of ordinary test prompts, without duplicates"""
    test_harmful: PositiveInt = 500
    """number of harmful test prompts of the paper's risk categories, without duplicates"""
    test_borderline: PositiveInt = 500
    """number of harmless test prompts that resemble harmful ones, without duplicates"""
    test_dialogues: PositiveInt = 200
    """number of test dialogues for instruction retention, for values in the training data and for unseen
    values each"""
    test_turns: PositiveInt = 20
    """number of prompts in each test dialogue"""
