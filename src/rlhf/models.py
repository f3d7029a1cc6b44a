"""Loads the models of rejection sampling and PPO; checks their tokenizers and finds their common context."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ..errors import DataError
from ..measures import JUDGE, REWARD_MODELS
from ..model import reward_models
from ..model.checkpoint import context_length, load_tokenizer, tokenizer_hash
from ..model.partitioned_reward import PartitionedRewardModel
from ..model.reward_models import RewardModels
from ..model.scorer import Scorer
from .settings import RlhfSettings
from .shared_base import SharedBaseModel


def common_tokenizer(inputs: Mapping[str, Path], *names: str) -> Any:
    """The tokenizer of the inputs `names` and of all reward models.

    Raises DataError, before any weights are read, if their tokenizers differ.
    """
    first, *others = _folders(inputs, names)
    tokenizer = load_tokenizer(first)
    for folder in others:
        if tokenizer_hash(load_tokenizer(folder)) != tokenizer_hash(tokenizer):
            raise DataError(
                f"{folder}: its tokenizer differs from that of {first}; all models of RLHF need the same "
                "tokenizer, so use models of one run"
            )
    return tokenizer


def smallest_context(inputs: Mapping[str, Path], *names: str) -> int:
    """The smallest context, in tokens, of the inputs `names` and of all reward models.

    Raises DataError if the config of a model cannot be read.
    """
    return min(map(context_length, _folders(inputs, names)))


def _folders(inputs: Mapping[str, Path], names: Sequence[str]) -> list[Path]:
    judges = [JUDGE] if JUDGE in inputs else []
    return [inputs[name] for name in (*names, *REWARD_MODELS, *judges)]


def load_reward_models(
    settings: RlhfSettings, inputs: Mapping[str, Path], tokenizer: Any, *, shared: SharedBaseModel | None
) -> RewardModels:
    """All reward models, held as `frozen_models` says, or as adapters of `shared` if given.

    Every rank calls it. Raises DataError for an invalid folder.
    """
    return reward_models.load_reward_models(
        inputs,
        safety_threshold=settings.safety_threshold,
        load=lambda name, folder: _scorer(settings, name, folder, tokenizer=tokenizer, shared=shared),
    )


def _scorer(
    settings: RlhfSettings, name: str, folder: Path, *, tokenizer: Any, shared: SharedBaseModel | None
) -> Scorer:
    if shared is not None:
        dtype = "bfloat16" if shared.bf16 else settings.dtype
        return Scorer(folder, tokenizer, load=partial(shared.reward_model, name), dtype=dtype)
    if settings.frozen_models == "sharded":
        load = partial(PartitionedRewardModel, bf16=settings.dtype == "bfloat16")
        return Scorer(folder, tokenizer, load=load, dtype="float32")
    offloaded = settings.frozen_models == "offloaded"
    return Scorer(folder, tokenizer, dtype=settings.dtype, offloaded=offloaded)
