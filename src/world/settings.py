"""Settings of the miniature world."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field, PositiveInt

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
    """number of single-turn dialogues with an instruction in the system message"""
    multi_turn: PositiveInt = 600
    """number of dialogues of 2 to 6 turns without instruction"""
    preprompted: PositiveInt = 1_000
    """number of dialogues with a safety preprompt in the system message"""
    safety_demonstrations: PositiveInt = 1_500
    """number of harmful prompts with the best refusal, in a file of their own"""
    ghost_attention: PositiveInt = 1_200
    """number of dialogues of 2 to 20 turns with an instruction, each also written without it"""
    comparisons: PositiveInt = 8_000
    """number of comparisons of each kind, helpfulness and safety"""
    test_comparisons: PositiveInt = 1_000
    """number of held-out comparisons of each kind, and of those by other annotators"""
    judge_comparisons: PositiveInt = 6_000
    """number of comparisons by other annotators, of both kinds together, for a third reward model"""
    refusal_answers: PositiveInt = 2_000
    """number of answers labelled as refusal or not"""
    test_refusal_answers: PositiveInt = 500
    """number of held-out answers labelled as refusal or not"""
    prompts: PositiveInt = 3_000
    """number of prompts for rejection sampling and PPO"""
    test_ordinary: PositiveInt = 1_000
    """number of ordinary test prompts, without duplicates"""
    test_harmful: PositiveInt = 500
    """number of harmful test prompts of the paper's risk categories, without duplicates"""
    test_borderline: PositiveInt = 500
    """number of harmless test prompts that resemble harmful ones, without duplicates"""
    diversity_prompts: Annotated[int, Field(ge=1, le=32)] = 10
    """number of factual prompts, and of open ones, for the diversity of answers by temperature"""
    red_team_prompts: PositiveInt = 420
    """number of red-team prompts, evenly over risk categories and attack styles, without duplicates"""
    test_dialogues: PositiveInt = 200
    """number of test dialogues for instruction retention, for values in the training data and for unseen
    values each"""
    test_turns: PositiveInt = 20
    """number of prompts in each test dialogue"""
