"""How models that are not trained are held: whole, partitioned over the ranks, or on the host while idle."""

from __future__ import annotations

import copy
import gc
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, TypeVar

import torch
import torch.distributed
from torch import nn

from ..deepspeed_file import frozen_config
from ..distributed.device import device
from ..distributed.group import all_reduce_max
from .sharded import forget

T = TypeVar("T")

_partitioned: weakref.WeakSet[nn.Module] = weakref.WeakSet()  # those that `run_partitioned` got


@contextmanager
def partitioning(config: Mapping[str, Any] | None) -> Iterator[None]:
    """Context in which models that are loaded or built are partitioned, if `config` has ZeRO-3.

    `config`: settings of a DeepSpeed engine without `auto`; None: no DeepSpeed.
    """
    if config is None or config.get("zero_optimization", {}).get("stage") != 3:
        yield
        return
    from transformers.integrations import HfDeepSpeedConfig
    from transformers.integrations.deepspeed import unset_hf_deepspeed_config

    active = HfDeepSpeedConfig(copy.deepcopy(dict(config)))  # transformers keeps only a weak reference to it
    try:
        yield
    finally:
        unset_hf_deepspeed_config()
        del active


def load_partitioned(load: Callable[[], T], *, bf16: bool) -> T:
    """Returns the model that `load` loads, partitioned; every rank calls it. See `run_partitioned`."""
    with partitioning(frozen_config(bf16=bf16)):
        return load()


def run_partitioned(module: nn.Module, *, bf16: bool) -> None:
    """Makes a partitioned module's forward pass gather each layer's weights while the layer computes.

    Every rank must call the module equally often, see `missing_passes`. The module is called directly, not
    through DeepSpeed's engine, whose forward pass would claim the backward pass of what is computed with it.
    """
    import deepspeed

    deepspeed.initialize(
        model=module.eval().requires_grad_(False), config=frozen_config(bf16=bf16), dist_init_required=False
    )
    _partitioned.add(module)


def free_partitioned() -> None:
    """Frees all partitioned modules that nobody but DeepSpeed refers to; the others can't be called any more.

    Without it DeepSpeed keeps them as long as the process runs, see `sharded.forget`.
    """
    while _partitioned:
        forget(_partitioned.pop())
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def missing_passes(passes: int) -> int:
    """How many passes of a partitioned model this rank must add so that all ranks make equally many.

    `passes`: this rank's number of passes. Every rank calls it.
    """
    return int(all_reduce_max(torch.tensor(passes))) - passes


class Offloaded:
    """Keeps a module's parameters in the host's memory, pinned, and brings them to the device for use.

    The module is not trained, so nothing is copied back. While it is idle its parameters are empty.
    """

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        for layer in module.modules():
            for name, buffer in layer.named_buffers(recurse=False):
                setattr(layer, name, buffer.to(device()))
        self._host = []
        for parameter in module.parameters():
            self._host.append(HostCopy(parameter.data))
            _empty(parameter)  # one after the other: the host never holds the module twice

    @contextmanager
    def on_device(self) -> Iterator[None]:
        """Context in which the module can be called."""
        for parameter, host in zip(self._module.parameters(), self._host, strict=True):
            parameter.data = host.on_device()
        try:
            yield
        finally:
            for parameter in self._module.parameters():
                _empty(parameter)


def _empty(parameter: nn.Parameter) -> None:
    parameter.data = torch.empty(0, dtype=parameter.dtype, device=device())


class HostCopy:
    """A copy of a tensor in the host's memory, in pinned pieces of 2^n elements.

    torch rounds the size of each pinned tensor up to a power of two: whole matrices of Llama 2 would take up
    to 1.7 times their bytes.

    Attributes:
        pieces: one-dimensional.
    """

    def __init__(self, values: torch.Tensor) -> None:
        self._shape, self._dtype = values.shape, values.dtype
        self.pieces = [_pinned(piece) for piece in values.flatten().split(powers_of_two(values.numel()))]

    def on_device(self) -> torch.Tensor:
        """Returns the tensor on this rank's device."""
        values = torch.empty(self._shape, dtype=self._dtype, device=device())
        places = values.view(-1).split([piece.numel() for piece in self.pieces])
        for place, piece in zip(places, self.pieces, strict=True):
            place.copy_(piece, non_blocking=True)
        return values


def powers_of_two(number: int) -> list[int]:
    """The powers of two whose sum is `number`, the largest first."""
    return [1 << bit for bit in reversed(range(number.bit_length())) if number >> bit & 1]


def _pinned(values: torch.Tensor) -> torch.Tensor:
    host = values.to("cpu")
    return host.pin_memory() if torch.cuda.is_available() else host


class FrozenModel:
    """A model that is not trained; calling it is calling the module.

    Args:
        module: with `sharded` it must be partitioned, see `load_partitioned`.
        held: `whole` (on this rank's device), `sharded` or `offloaded`.
        bf16: whether a partitioned module is in bf16.
    """

    def __init__(self, module: nn.Module, held: str, *, bf16: bool) -> None:
        self.module = module.eval().requires_grad_(False)
        self._offloaded: Offloaded | None = None
        if held == "sharded":
            run_partitioned(module, bf16=bf16)
        elif held == "offloaded":
            self._offloaded = Offloaded(module)
        else:
            module.to(device())

    def __call__(self, *args: Any, **options: Any) -> Any:
        return self.module(*args, **options)

    def in_use(self) -> AbstractContextManager[None]:
        """Context in which it can be called."""
        return self._offloaded.on_device() if self._offloaded else nullcontext()
