"""Precision of forward passes and of the weights of models that are not trained."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import nn

from ..distributed.device import report_slow_bf16
from .sharded import is_partitioned


def computing_in(dtype: str, device: torch.device | str) -> AbstractContextManager[Any]:
    """Context manager for matrix products in `dtype` by autocast (`float32`: in the weights' precision).

    Autocast does not cache the weights that it casts, because they may change before the next pass.
    """
    if dtype == "bfloat16":
        report_slow_bf16()
    return torch.autocast(
        torch.device(device).type, torch.bfloat16, enabled=dtype == "bfloat16", cache_enabled=False
    )


def store_in(dtype: str, model: nn.Module) -> None:
    """Stores the matrices of a model that is not trained in the dtype in which `computing_in` uses them.

    With `bfloat16` their memory is halved and results stay the same to the last bit, because autocast would
    cast them in each pass. Embeddings, norms and heads with one output stay: autocast does not cast them.
    ZeRO-3's partitions stay, too: their engine determines the dtype.
    """
    if dtype != "bfloat16":
        return
    embeddings = {id(layer.weight) for layer in model.modules() if isinstance(layer, nn.Embedding)}
    for layer in model.modules():
        if not isinstance(layer, nn.Linear) or layer.out_features == 1 or is_partitioned(layer.weight):
            continue
        if id(layer.weight) not in embeddings:
            layer.weight.data = layer.weight.data.bfloat16()
