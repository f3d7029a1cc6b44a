"""The precision that forward passes are computed in, whatever precision the weights are kept in."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import torch


def computing_in(dtype: str, device: torch.device | str) -> AbstractContextManager[Any]:
    """Within it matrices are multiplied in `dtype` (`float32`: in the weights' own), as autocast has it.

    Autocast keeps no weights that it has cast: they may be other ones by the next pass.
    """
    return torch.autocast(
        torch.device(device).type, torch.bfloat16, enabled=dtype == "bfloat16", cache_enabled=False
    )
