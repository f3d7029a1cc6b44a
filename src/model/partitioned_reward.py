"""A reward model that is not trained and whose weights ZeRO-3 has partitioned over the ranks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..artifact import model_folder
from ..distributed.device import device
from .checkpoint import load_reward_model
from .frozen import load_partitioned, run_partitioned
from .sharded_loading import read_tensor


class PartitionedRewardModel(nn.Module):
    """A sequence classifier with only `base_model`, partitioned, and `score`, whole and in fp32.

    Every rank must make the same number of forward passes.

    Args:
        folder: an artifact or a folder of transformers.
        bf16: whether the base model's weights are in bf16; otherwise they are in fp32.
    """

    partitioned = True

    def __init__(self, folder: Path, *, bf16: bool) -> None:
        super().__init__()
        model: Any = load_partitioned(lambda: load_reward_model(folder), bf16=bf16)
        self.config = model.config
        head = read_tensor(model_folder(folder), "score.weight")
        outputs, inputs = head.shape
        self.score = nn.Linear(inputs, outputs, bias=False, device=device())
        with torch.no_grad():
            self.score.weight.copy_(head)
        self.base_model = model.base_model
        run_partitioned(self.base_model, bf16=bf16)

    @property
    def device(self) -> torch.device:
        """The device of this rank."""
        weight: Tensor = self.score.weight
        return weight.device
