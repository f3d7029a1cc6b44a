"""A sampler over running servers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llamita.sampling.settings import VllmEngine
from llamita.sampling.vllm.sampler import VllmSampler


def open_sampler(urls: list[str], folder: Path, working: Path, **settings: Any) -> VllmSampler:
    """A sampler of the model in a folder, with short time limits."""
    engine = VllmEngine.model_validate({"engine": "vllm", "urls": urls, "timeout": 30.0, **settings})
    return VllmSampler(engine, folder, dtype="float32", working=working)
