"""Files of the repository."""

from __future__ import annotations

from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
SMOLLM = REPOSITORY / "models" / "SmolLM2-135M-Instruct"  # there once `make smollm` has fetched it


def zero_file(kind: int | str) -> str:
    """The path of a DeepSpeed file: `kind` is 2, or "2_offload"."""
    return f"{REPOSITORY}/configs/deepspeed/zero{kind}.json"
