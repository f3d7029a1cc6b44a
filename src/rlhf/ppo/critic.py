"""The critic: a separate model, initialised from a reward model, that predicts the return at every token."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import LlamaForSequenceClassification

from .reward import logit, mean_and_variance


class Critic(nn.Module):
    """A reward model with its head applied to every state (the paper does not describe its critic).

    The head's outputs are scores before the sigmoid. Their spread is several times that of whitened rewards.
    `calibrate` maps them to the scale of the rewards, so training need not start by shrinking them.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, reward_model: LlamaForSequenceClassification) -> None:
        super().__init__()
        self.backbone = reward_model.base_model
        self.head = reward_model.score
        self.config = reward_model.config
        self.register_buffer("shift", torch.zeros(()))
        self.register_buffer("scale", torch.ones(()))

    def calibrate(self, scores: Tensor) -> None:
        """Shifts and scales all values the way whitening shifts and scales the logits of these scores.

        If all scores are equal, the scale stays unchanged. Every rank calls it.

        Args:
            scores: `[rows]` piecewise scores in (0, 1) of this rank's answers.
        """
        mean, variance = mean_and_variance(logit(scores), torch.ones_like(scores, dtype=torch.bool))
        self.shift.fill_(mean)
        if variance > 0:
            self.scale.fill_(variance.sqrt())

    def forward(self, ids: Tensor) -> Tensor:
        """Ids `[rows, length]` -> fp32 values `[rows, length - 1]` of the states before each next token."""
        hidden = self.backbone(input_ids=ids[:, :-1], use_cache=False).last_hidden_state
        outputs: Tensor = self.head(hidden).squeeze(-1).float()
        return (outputs - self.shift) / self.scale
