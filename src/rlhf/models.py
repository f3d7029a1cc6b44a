"""The models that rejection sampling and PPO read: checked to have one tokenizer, with LoRA on one trunk."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from ..errors import DataError
from ..model.checkpoint import load_reward_model, load_tokenizer, tokenizer_hash
from ..model.reward_models import RewardModels
from ..model.scorer import Scorer
from .settings import RlhfSettings
from .trunk import SharedTrunk

REWARD_MODELS = ("helpfulness", "safety")


def common_tokenizer(inputs: Mapping[str, Path], *names: str) -> Any:
    """The tokenizer of the first of these inputs and of the reward models.

    Raises DataError where another has another one, before any weights are read.
    """
    first, *others = (inputs[name] for name in (*names, *REWARD_MODELS))
    tokenizer = load_tokenizer(first)
    for folder in others:
        if tokenizer_hash(load_tokenizer(folder)) != tokenizer_hash(tokenizer):
            raise DataError(f"{folder}: another tokenizer than that of {first}; expected models of one run")
    return tokenizer


def load_reward_models(
    settings: RlhfSettings, inputs: Mapping[str, Path], tokenizer: Any, *, trunk: SharedTrunk | None
) -> RewardModels:
    """Both reward models, as adapters of `trunk` where there is one. Raises DataError for a broken folder."""
    helpfulness, safety = (
        Scorer(
            inputs[name],
            tokenizer,
            load=load_reward_model if trunk is None else partial(trunk.reward_model, name),
            dtype=settings.dtype,
        )
        for name in REWARD_MODELS
    )
    return RewardModels(helpfulness, safety, settings.safety_threshold)
