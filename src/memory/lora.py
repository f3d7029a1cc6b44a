"""Models with LoRA adapters: what of them is trained, and what is frozen."""

from __future__ import annotations

import re

from ..training.settings import LoraSettings
from .frozen import Frozen
from .moments import Parts
from .shape import Shape
from .states import Trained


def adapted(shape: Shape, lora: LoraSettings) -> Trained:
    """A frozen model with an adapter, and of a reward model the trained head."""
    tensors = adapter(shape, lora)
    head = sum(shape.head) if shape.scores else 0
    return Trained(shape, sum(tensors), shape.parameters - head, tensors)


def adapter(shape: Shape, lora: LoraSettings) -> tuple[int, ...]:
    """Numbers of elements of an adapter's tensors: two per adapted matrix, and a reward model's head."""
    of_layer = [
        lora.r * size
        for name, sizes in shape.matrices.items()
        if _is_adapted(name, lora.target_modules)
        for size in sizes
    ]
    return *of_layer * shape.num_hidden_layers, *(shape.head if shape.scores else [])


def _is_adapted(name: str, wanted: str | list[str]) -> bool:
    """Whether peft's `target_modules` names a matrix: by the ends of names, or by a regular expression."""
    if wanted == "all-linear":
        return True
    full = f"model.layers.0.{name}"
    if isinstance(wanted, str):
        return re.fullmatch(wanted, full) is not None
    return any(full.endswith(f".{end}") for end in wanted)


def base_model(shape: Shape, *, bf16: bool, partitioned: bool, ranks: int) -> tuple[Parts, Parts]:
    """The base model that several adapters share: the part `base`, and `gathered` in its passes.

    Of a `partitioned` model each rank holds a share.
    """
    model = Frozen(shape, bf16, small_too=True)
    if partitioned:
        return {"base": model.share(ranks)}, {"gathered": model.gathered(ranks)}
    return {"base": model.whole}, {}
