"""Sizes of Llama models (paper, section 2.2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field, model_validator

from ..settings import Settings

if TYPE_CHECKING:
    from transformers import LlamaConfig


class ModelSize(Settings):
    """The shape of a Llama, with the names of `transformers.LlamaConfig`.

    Grouped-query attention has fewer `num_key_value_heads` than heads, as in the 34B and 70B models.
    """

    hidden_size: int = Field(gt=0)
    """width of the residual stream"""
    intermediate_size: int = Field(gt=0)
    """width inside the feed-forward layers"""
    num_hidden_layers: int = Field(gt=0)
    """number of layers"""
    num_attention_heads: int = Field(gt=0)
    """number of query heads, which must divide `hidden_size`"""
    num_key_value_heads: int = Field(gt=0)
    """number of key and value heads, which must divide `num_attention_heads`"""
    max_position_embeddings: int = Field(gt=0)
    """context of the model, in tokens"""
    tie_word_embeddings: bool = False
    """whether input embeddings and output layer share their weights (not in the paper's models)"""
    rope_theta: float = Field(10000.0, gt=0)
    """base of the rotary embeddings' wavelengths"""
    rms_norm_eps: float = Field(1e-5, gt=0)
    """epsilon of RMSNorm, which prevents division by zero"""
    initializer_range: float = Field(0.02, gt=0)
    """standard deviation of the initial weights; narrow models need more than the 0.02 of wide ones"""

    @model_validator(mode="after")
    def _heads_fit(self) -> ModelSize:
        heads, groups = self.num_attention_heads, self.num_key_value_heads
        if self.hidden_size % heads:
            raise ValueError(f"num_attention_heads {heads} does not divide hidden_size {self.hidden_size}")
        if self.hidden_size // heads % 2:
            raise ValueError(
                f"hidden_size / num_attention_heads is {self.hidden_size // heads}; expected an even number"
            )
        if heads % groups:
            raise ValueError(f"num_key_value_heads {groups} does not divide num_attention_heads {heads}")
        return self

    def llama_config(self, vocab_size: int) -> LlamaConfig:
        """Returns the config for a vocabulary, with Llama's special ids: pad 0 (`<unk>`), bos 1, eos 2."""
        from transformers import LlamaConfig

        shape = self.model_dump(exclude={"rope_theta"})
        return LlamaConfig(
            **shape,
            rope_parameters={"rope_type": "default", "rope_theta": self.rope_theta},
            vocab_size=vocab_size,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
        )


def parameter_count(size: ModelSize, vocab_size: int) -> int:
    """Number of parameters: embeddings, attention, feed-forward layers, norms and output layer."""
    hidden = size.hidden_size
    key_value = hidden // size.num_attention_heads * size.num_key_value_heads
    attention = 2 * hidden * hidden + 2 * hidden * key_value
    layer = attention + 3 * hidden * size.intermediate_size + 2 * hidden
    embeddings = vocab_size * hidden * (1 if size.tie_word_embeddings else 2)
    return embeddings + size.num_hidden_layers * layer + hidden
