"""Bytes in the memory of a rank's host while a model is loaded, published and merged.

Nothing of it is needed between these moments. Files that are read are memory-mapped and not counted.
"""

from __future__ import annotations

from .engine import BF16, FP32, Engine
from .states import Trained

FILE = 5 * 1024**3  # bytes of weights that `model/saving.py: save_partitioned` collects for one file
LARGEST_FILE = 50 * 10**9  # the same of transformers' `save_pretrained`


def loading(model: Trained, engine: Engine, rank: int) -> int:
    """Weights before they are on the GPU.

    Every rank builds the whole model in fp32, with an adapter the base model in bf16. Under ZeRO-3 rank 0
    reads or draws one weight at a time.
    """
    if engine.stage == 3:
        return 0 if rank else FP32 * max(model.shape.tensors)
    frozen = FP32 if engine.precision == "fp32" else BF16
    return FP32 * model.trained + frozen * model.frozen


def published(model: Trained, engine: Engine, rank: int) -> int:
    """Copies of the weights that are written, without an adapter: rank 0 writes.

    Under ZeRO-0, 1 and 2 it copies all of them first, under ZeRO-3 and without DeepSpeed those of one file.
    """
    if rank:
        return 0
    size = engine.width * model.shape.parameters
    if engine.stage is None:
        return min(size, LARGEST_FILE)
    return min(size, FILE) if engine.stage == 3 else size


def merged(model: Trained, rank: int) -> int:
    """With `lora.merge` rank 0 loads the base model in fp32 when training has ended, and the adapter."""
    return 0 if rank else FP32 * (model.shape.parameters + model.trained)
