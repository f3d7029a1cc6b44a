"""The weights of a partitioned model for vLLM's own transfer by NCCL. Never run with vLLM: it needs GPUs.

The engine `vllm` passes weights through a folder. Where the trainer's environment has vLLM, its
`WeightTransferTrainerFactory` can send them from GPU to GPU; it takes them from a source like this one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from .weights import weights_of, whole_weights


def weight_source(model: Any, dtype: torch.dtype) -> Any:
    """A `WeightSource` of vLLM over a model's weights, gathered one by one and merged with adapters.

    Every rank must iterate over it to the end.

    Args:
        model: a causal language model; ZeRO-3 may have partitioned it.
        dtype: precision of the weights that are sent.

    Raises:
        ImportError: the environment has no vLLM.
    """
    from vllm.distributed.weight_transfer.base import ParamMeta, WeightSource

    class GatheredSource(WeightSource):
        """The weights by the names of transformers."""

        def metadata(self) -> list[Any]:
            """Name, dtype and whole shape of each weight, in the order of the iteration."""
            return [ParamMeta(weight.name, dtype, weight.shape) for weight in weights_of(model)]

        def __iter__(self) -> Iterator[tuple[str, Tensor]]:
            return whole_weights(model, dtype)

    return GatheredSource()
