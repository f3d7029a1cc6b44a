"""Number of floating point operations for training a Llama, from which MFU is computed."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import LlamaConfig, PreTrainedConfig

ALIKE = ("llama", "mistral")  # architectures with the same matrix products
BACKWARD = 2  # cost of a backward pass in forward passes: gradients of inputs and of weights


def forward_flops_per_token(config: LlamaConfig, attended: float) -> float:
    """Returns the FLOPs of a forward pass for one token; a multiplication and an addition count as two.

    Counts matrix products only, as PaLM's appendix B: no norms, rotations or activations. Grouped-query
    attention makes the projections of keys and values smaller, but not scores and weighted sums.

    Args:
        attended: mean number of positions that a token attends to, itself included: (length + 1) / 2 in
            causal rows of one document.
    """
    width, heads = config.hidden_size, config.num_attention_heads
    queries, keys = heads * config.head_dim, config.num_key_value_heads * config.head_dim
    projections = width * (queries + 2 * keys) + queries * width
    attention = 2 * attended * queries  # scores, weighted sums
    feed_forward = 3 * width * config.intermediate_size
    layer = projections + attention + feed_forward
    return 2 * (config.num_hidden_layers * layer + width * config.vocab_size)


def training_flops_per_token(config: PreTrainedConfig, attended: float) -> float | None:
    """Returns the FLOPs of forward and backward pass, without recomputed activations (not model FLOPs).

    Returns None for other architectures than Llama's.
    """
    if config.model_type not in ALIKE:
        return None
    return (1 + BACKWARD) * forward_flops_per_token(config, attended)
