"""The device of this rank."""

from __future__ import annotations

import os

import torch


def device() -> torch.device:
    """This rank's GPU, or the CPU if there is none."""
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK") or 0))
    return torch.device("cpu")
