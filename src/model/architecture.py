"""Properties of an architecture that limit which sequences can share a batch, and their length."""

from __future__ import annotations

import sys
from typing import Any


def context_of(config: Any) -> int:
    """Returns the maximum length, in tokens, at which a sequence's results don't depend on its batch.

    With RoPE of the type `longrope` this is the range of its short factors: beyond it, the longest sequence
    of a batch determines the factors for all of them.
    """
    rope = getattr(config, "rope_parameters", None) or {}
    by_layer_type = [part for part in rope.values() if isinstance(part, dict)]
    limits = [
        part.get("original_max_position_embeddings") or config.original_max_position_embeddings
        for part in (rope, *by_layer_type)
        if part.get("rope_type") == "longrope"
    ]
    return int(min([getattr(config, "max_position_embeddings", None) or sys.maxsize, *limits]))


def carries_state(config: Any) -> bool:
    """Whether layers carry a state from token to token that neither positions nor masks reset.

    Recurrent and convolutional layers do, including Mamba and linear attention.
    """
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING

    kinds = getattr(config, "layer_types", None) or ()
    model_class = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
    return bool(getattr(model_class, "_is_stateful", False)) or any(
        kind == "linear_attention" or not kind.endswith("attention") for kind in kinds
    )
