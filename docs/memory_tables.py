"""The paper's models, and Markdown tables of bytes, for the pages of `make_memory.py`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

ZERO_FILES = Path(__file__).parents[1] / "configs" / "deepspeed"
GB = 10**9
LIMIT = 76 * GB  # of 80: the rest is for CUDA, NCCL and fragmentation
GPUS_OF_NODE = 8

MODELS: dict[str, dict[str, Any]] = {  # section 2.2 of the paper, and the published config.json
    name: {
        "model_type": "llama",
        "vocab_size": 32_000,
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": groups,
    }
    for name, hidden, inner, layers, heads, groups in (
        ("7B", 4096, 11_008, 32, 32, 32),
        ("13B", 5120, 13_824, 40, 40, 40),
        ("34B", 8192, 22_016, 48, 64, 8),
        ("70B", 8192, 28_672, 80, 64, 8),
    )
}


def gb(size: int) -> str:
    """In GB, with a dash for nothing."""
    return f"{size / GB:.1f}" if size else "–"


def marked(size: int) -> str:
    """In GB, bold if it fits."""
    return f"**{gb(size)}**" if size <= LIMIT else gb(size)


def table(head: list[str], rows: Iterable[list[str]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(line) + " |" for line in (head, *rows)]
    return "\n".join([lines[0], "|---" * len(head) + "|", *lines[1:], ""])
