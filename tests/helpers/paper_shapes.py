"""`config.json` of the paper's models, as published, without what does not decide their size."""

from __future__ import annotations

from typing import Any

PAPER: dict[str, dict[str, Any]] = {
    name: {
        "model_type": "llama",
        "vocab_size": 32_000,
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": groups,
        "max_position_embeddings": 4096,
    }
    for name, hidden, inner, layers, heads, groups in (
        ("7B", 4096, 11_008, 32, 32, 32),
        ("13B", 5120, 13_824, 40, 40, 40),
        ("34B", 8192, 22_016, 48, 64, 8),
        ("70B", 8192, 28_672, 80, 64, 8),
    )
}
