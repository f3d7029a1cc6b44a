"""The policy: a causal language model that returns what PPO needs of it, of answer tokens only."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from ...sampling.logprobs import excluded_pad_id
from ...sampling.output_layer import OutputLayer, decoder_of, score_tokens
from ..shared_base import AdaptedLanguageModel, transformers_model


class Policy(nn.Module):
    """A language model, whose logits are computed for answer tokens only, and never all at once.

    An engine can train or shard it: it uses each weight only inside the module that owns it.

    Args:
        model: a causal language model of transformers or an `AdaptedLanguageModel`; shares its weights.
        temperature: sampling temperature, above 0; every log-probability uses it.

    Raises:
        ConfigError: the architecture's logits are not those of its output layer, scaled or capped.
    """

    def __init__(self, model: nn.Module, temperature: float) -> None:
        super().__init__()
        self.model = model
        pad = excluded_pad_id(self.language_model.config)
        self._layer = OutputLayer.of(self.language_model, pad, temperature, forward=model)

    @property
    def language_model(self) -> Any:
        """The `transformers` model, with this policy's adapter active if it has one."""
        return transformers_model(self.model)

    def forward(self, ids: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probabilities, with gradient, and entropies, without, of answer tokens.

        No attention mask is needed: attention is causal and the pads are on the right.

        Args:
            ids: `[rows, length]` int64, right-padded.
            places: `[answer tokens]` int64, indices of the True entries in the flattened answer mask
                `[rows, length - 1]` (see `pad_batch`). Indices, because a GPU would have to count the entries
                of a mask, and Python to wait for it.

        Returns:
            `[rows, length - 1]` each, at least fp32: of token `t + 1` at index `t`; 0 outside the mask.
        """
        if isinstance(self.model, AdaptedLanguageModel):
            table = self.model.run(self._table, ids=ids, places=places)
        else:
            table = self._table(ids, places)
        logprobs, entropies = table.view(2, len(ids), -1)
        return logprobs, entropies.detach()

    def _table(self, ids: Tensor, places: Tensor) -> Tensor:
        """`[2, rows * (length - 1)]`: log-probabilities and entropies."""
        model, before = self.language_model, ids[:, :-1]
        states = decoder_of(model)(input_ids=before, use_cache=False).last_hidden_state
        scores = score_tokens(
            model,
            self._layer,
            states.flatten(0, 1).index_select(0, places),
            tokens=ids[:, 1:].flatten().index_select(0, places),
        )
        return scores.new_zeros(2, before.numel()).index_copy(1, places, scores)
