"""The critic: a model of its own that begins as a reward model and learns what to expect at every token."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import LlamaForSequenceClassification

from .reward import logit, moments


class Critic(nn.Module):
    """A reward model read at every state instead of the last one (the paper does not describe its critic).

    Its head's outputs are scores before the sigmoid, which scatter several times as much as whitened rewards:
    `calibrate` gives values the scale of the rewards, so that PPO need not begin by shrinking them.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, reward_model: LlamaForSequenceClassification) -> None:
        super().__init__()
        self.backbone = reward_model.base_model
        self.head = reward_model.score
        self.register_buffer("shift", torch.zeros(()))
        self.register_buffer("scale", torch.ones(()))

    def calibrate(self, scores: Tensor) -> None:
        """Shifts and scales all values as the whitening does the rewards of this batch.

        `scores`: `[rows]` piecewise scores in (0, 1) of this rank's answers; all ranks call it together. A
        batch without spread leaves the scale as it is.
        """
        mean, variance = moments(logit(scores), torch.ones_like(scores, dtype=torch.bool))
        self.shift.fill_(mean)
        if variance > 0:
            self.scale.fill_(variance.sqrt())

    def forward(self, ids: Tensor) -> Tensor:
        """Ids `[rows, length]` -> fp32 values `[rows, length - 1]` of the states before each next token."""
        hidden = self.backbone(input_ids=ids[:, :-1], use_cache=False).last_hidden_state
        outputs: Tensor = self.head(hidden).squeeze(-1).float()
        return (outputs - self.shift) / self.scale
