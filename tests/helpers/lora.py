"""Fine-tuning with LoRA adapters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llamita.sft import stage as sft
from llamita.sft.settings import SftSettings

from .material import SFT
from .stage_runs import run

LORA = {"r": 4, "lora_alpha": 8}


def tune(
    root: Path,
    name: str,
    steps: int,
    lora: dict[str, Any] | None,
    rate: float = 1e-2,
    base: str = "base",
) -> Any:
    """Runs SFT for `steps` steps on `base` into `name`, both below `root`; returns the metrics."""
    trainer = SFT["trainer"] | {"max_steps": steps, "learning_rate": rate, "save_steps": 3}
    return run(sft, SftSettings, SFT | {"trainer": trainer, "lora": lora}, root, name, model=base)
