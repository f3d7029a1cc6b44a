"""Loads the models of rejection sampling and PPO; checks that they share a tokenizer (LoRA: a base model)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import DataError
from ..measures import REWARD_MODELS
from ..model import reward_models
from ..model.checkpoint import load_tokenizer, tokenizer_hash
from ..model.reward_models import RewardModels
from .settings import RlhfSettings
from .shared_base import SharedBaseModel


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
    settings: RlhfSettings, inputs: Mapping[str, Path], tokenizer: Any, *, shared: SharedBaseModel | None
) -> RewardModels:
    """Both reward models, as adapters of `shared` if given. Raises DataError for a broken folder."""
    return reward_models.load_reward_models(
        inputs,
        tokenizer,
        safety_threshold=settings.safety_threshold,
        dtype=settings.dtype,
        **({} if shared is None else {"load": shared.reward_model}),
    )
