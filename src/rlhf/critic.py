"""The critic: a model of its own that begins as a reward model and learns what to expect at every token."""

from __future__ import annotations

from torch import Tensor, nn
from transformers import LlamaForSequenceClassification


class Critic(nn.Module):
    """A reward model read at every state instead of the last one (the paper does not describe its critic)."""

    def __init__(self, reward_model: LlamaForSequenceClassification) -> None:
        super().__init__()
        self.backbone = reward_model.base_model
        self.head = reward_model.score

    def forward(self, ids: Tensor) -> Tensor:
        """Ids `[rows, length]` -> fp32 values `[rows, length - 1]` of the states before each next token."""
        hidden = self.backbone(input_ids=ids[:, :-1], use_cache=False).last_hidden_state
        values: Tensor = self.head(hidden).squeeze(-1).float()
        return values
