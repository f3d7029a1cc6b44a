"""How much arithmetic training a Llama takes: MFU is the share of a device's peak that this makes up."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import LlamaConfig, PreTrainedConfig

ALIKE = ("llama", "mistral")  # the same matrix products
BACKWARD = 2  # forward passes that a backward pass costs: gradients of inputs and of weights


def forward_flops_per_token(config: LlamaConfig, attended: float) -> float:
    """FLOPs of a forward pass for one token; a multiplication and an addition are two.

    Matrix products only, as in PaLM's appendix B: norms, rotations and activations are left out. With
    grouped-query attention the projections of keys and values shrink, scores and weighted sums do not.

    Args:
        attended: positions that a token attends to, itself included, on average: (length + 1) / 2 in causal
            rows of one document.
    """
    width, heads = config.hidden_size, config.num_attention_heads
    queries, keys = heads * config.head_dim, config.num_key_value_heads * config.head_dim
    projections = width * (queries + 2 * keys) + queries * width
    attention = 2 * attended * queries  # scores, weighted sums
    feed_forward = 3 * width * config.intermediate_size
    layer = projections + attention + feed_forward
    return 2 * (config.num_hidden_layers * layer + width * config.vocab_size)


def training_flops_per_token(config: PreTrainedConfig, attended: float) -> float | None:
    """Forward and backward pass; recomputing activations is work, but not model FLOPs.

    None where the architecture is not Llama's.
    """
    if config.model_type not in ALIKE:
        return None
    return (1 + BACKWARD) * forward_flops_per_token(config, attended)
