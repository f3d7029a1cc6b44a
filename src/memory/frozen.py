"""Models that are not trained: reward models, PPO's reference, and the base model that adapters share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..rlhf.settings import FrozenModels
from . import states
from .engine import BF16, FP32, Engine
from .moments import Parts
from .shape import Shape
from .states import Trained


@dataclass(frozen=True)
class Frozen:
    """A model that is not trained.

    Attributes:
        bf16: whether its matrices are in bf16; otherwise all weights are in fp32.
        small_too: whether embeddings, norms and a reward model's head are in bf16, too.
    """

    shape: Shape
    bf16: bool
    small_too: bool = False

    @property
    def whole(self) -> int:
        """Bytes of all weights (`model/precision.py: store_in`)."""
        if not self.bf16 or self.small_too:
            return (BF16 if self.bf16 else FP32) * self.shape.parameters
        matrices = self.shape.num_hidden_layers * self.shape.layer_matrices
        if not self.shape.scores and not self.shape.tie_word_embeddings:
            matrices += self.shape.embeddings
        return FP32 * self.shape.parameters - (FP32 - BF16) * matrices

    def share(self, ranks: int) -> int:
        """Bytes on a rank if ZeRO-3 partitions the weights; then all of them are in bf16, or none."""
        return states.weights(Trained.whole(self.shape), self._engine(ranks))

    def gathered(self, ranks: int) -> int:
        """Bytes that ZeRO-3 has gathered at once, at most, in a pass of a partitioned model."""
        return states.gathered(Trained.whole(self.shape), self._engine(ranks))

    def _engine(self, ranks: int) -> Engine:
        return Engine(ranks, 3, "bf16" if self.bf16 else "fp32")  # `deepspeed_file.py: frozen_config`


def idle(models: Sequence[Frozen], placement: FrozenModels, ranks: int) -> tuple[Parts, Parts]:
    """The part `frozen` of models that no pass uses, on the GPU and in the host's memory."""
    if placement == "sharded":
        return {"frozen": sum(model.share(ranks) for model in models)}, {}
    size = {"frozen": sum(model.whole for model in models)}
    return ({}, size) if placement == "offloaded" else (size, {})


def used(model: Frozen, placement: FrozenModels, ranks: int) -> Parts:
    """What a pass of one of these models needs of weights besides `idle`."""
    if placement == "sharded":
        return {"gathered": model.gathered(ranks)}
    return {"frozen": model.whole} if placement == "offloaded" else {}
