"""Precision of forward passes, which may differ from that of the weights."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import torch


def computing_in(dtype: str, device: torch.device | str) -> AbstractContextManager[Any]:
    """Context manager for matrix products in `dtype` by autocast (`float32`: in the weights' precision).

    Autocast does not cache the weights that it casts, because they may change before the next pass.
    """
    return torch.autocast(
        torch.device(device).type, torch.bfloat16, enabled=dtype == "bfloat16", cache_enabled=False
    )
