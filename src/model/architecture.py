"""What of an architecture decides which sequences may share a batch, and how long they may be."""

from __future__ import annotations

import sys
from typing import Any


def context_of(config: Any) -> int:
    """The most tokens that a model reads without its batch making a difference.

    With RoPE of the type `longrope` that is where its short factors end: beyond it, the longest sequence of a
    batch decides with which factors all of them are read.
    """
    rope = getattr(config, "rope_parameters", None) or {}
    by_layer_type = [part for part in rope.values() if isinstance(part, dict)]
    limits = [
        part.get("original_max_position_embeddings") or config.original_max_position_embeddings
        for part in (rope, *by_layer_type)
        if part.get("rope_type") == "longrope"
    ]
    return int(min([getattr(config, "max_position_embeddings", None) or sys.maxsize, *limits]))


def carries_state(model: Any) -> bool:
    """Whether layers carry a state from token to token, which neither positions nor masks reset.

    Such are recurrent and convolutional layers, Mamba's and linear attention among them.
    """
    kinds = getattr(model.config, "layer_types", None) or ()
    return bool(getattr(model, "_is_stateful", False)) or any(
        kind == "linear_attention" or not kind.endswith("attention") for kind in kinds
    )
