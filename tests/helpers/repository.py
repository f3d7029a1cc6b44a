"""Paths of the repository."""

from __future__ import annotations

from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
SMOLLM = REPOSITORY / "models" / "SmolLM2-135M-Instruct"  # exists after `make smollm`


def zero_file(kind: int | str) -> str:
    """Returns the path of a DeepSpeed file; `kind` is for example 2 or "2_offload"."""
    return f"{REPOSITORY}/configs/deepspeed/zero{kind}.json"
