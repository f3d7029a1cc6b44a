"""The shape of a Llama and the number of its parameters, from `config.json`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import DataError
from ..model.flops import ALIKE

REQUIRED = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
)


@dataclass(frozen=True)
class Shape:
    """The sizes of a Llama, with the names of its `config.json`.

    Attributes:
        scores: whether it is a reward model, with a head of one output in place of the output layer.
    """

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    tie_word_embeddings: bool = False
    scores: bool = False

    @classmethod
    def from_config(cls, config: Mapping[str, Any], *, scores: bool = False) -> Shape:
        """Reads the content of a `config.json`.

        Raises DataError if it is of another architecture than Llama's, or lacks a size.
        """
        kind = config.get("model_type")
        if kind not in ALIKE:
            raise DataError(f"config.json: model_type: expected {' or '.join(ALIKE)}, found {kind!r}")
        if missing := [name for name in REQUIRED if not config.get(name)]:
            raise DataError(f"config.json: {', '.join(missing)}: missing; expected the sizes of a Llama")
        sizes = {name: int(config[name]) for name in REQUIRED}
        heads = sizes["num_attention_heads"]
        return cls(
            **sizes,
            num_key_value_heads=config.get("num_key_value_heads") or heads,
            head_dim=config.get("head_dim") or sizes["hidden_size"] // heads,
            tie_word_embeddings=bool(config.get("tie_word_embeddings")),
            scores=scores,
        )

    @property
    def queries(self) -> int:
        """Width of all query heads."""
        return self.num_attention_heads * self.head_dim

    @property
    def keys(self) -> int:
        """Width of all key heads, and of all value heads."""
        return self.num_key_value_heads * self.head_dim

    @property
    def matrices(self) -> dict[str, tuple[int, int]]:
        """Numbers of inputs and outputs of the matrices in one layer, by name."""
        hidden, inner = self.hidden_size, self.intermediate_size
        return {
            "self_attn.q_proj": (hidden, self.queries),
            "self_attn.k_proj": (hidden, self.keys),
            "self_attn.v_proj": (hidden, self.keys),
            "self_attn.o_proj": (self.queries, hidden),
            "mlp.gate_proj": (hidden, inner),
            "mlp.up_proj": (hidden, inner),
            "mlp.down_proj": (inner, hidden),
        }

    @property
    def tensors(self) -> list[int]:
        """Numbers of elements of all weights: embeddings, layers with two norms each, last norm, head."""
        layer = [inputs * outputs for inputs, outputs in self.matrices.values()] + [self.hidden_size] * 2
        return [self.embeddings, *layer * self.num_hidden_layers, self.hidden_size, *self.head]

    @property
    def embeddings(self) -> int:
        """Number of elements of the input embeddings."""
        return self.vocab_size * self.hidden_size

    @property
    def head(self) -> list[int]:
        """Number of elements of the output layer or of a reward model's head; none if tied."""
        if self.scores:
            return [self.hidden_size]
        return [] if self.tie_word_embeddings else [self.embeddings]

    @property
    def parameters(self) -> int:
        """Number of parameters; tied embeddings count once."""
        return sum(self.tensors)

    @property
    def layer_matrices(self) -> int:
        """Number of elements of the matrices in one layer."""
        return sum(inputs * outputs for inputs, outputs in self.matrices.values())

    def persistent(self, threshold: int) -> int:
        """Number of parameters in weights of at most `threshold` elements, which ZeRO-3 keeps gathered."""
        return sum(size for size in self.tensors if size <= threshold)
