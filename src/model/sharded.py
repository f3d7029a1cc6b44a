"""Models that ZeRO-3 partitions over the ranks: built, filled and read one parameter at a time.

A rank holds its share of the weights and at most one whole parameter more. Everything here also works on
models that are whole.
"""

from __future__ import annotations

import functools
import gc
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed
from torch import Tensor

from ..processes import advanced, is_main_process


class Stored(NamedTuple):
    """A tensor in a file: the file, its name there, its shape."""

    file: Path
    name: str
    shape: tuple[int, ...]

    def read(self) -> Tensor:
        """The tensor, memory-mapped where safetensors can do so."""
        from safetensors import safe_open

        with safe_open(self.file, framework="pt") as file:
            tensor: Tensor = file.get_tensor(self.name)
        return tensor


def is_active() -> bool:
    """Whether models are partitioned while they are built: training arguments with ZeRO-3 exist."""
    from transformers.integrations import is_deepspeed_zero3_enabled

    return bool(is_deepspeed_zero3_enabled())


def is_partitioned(parameter: Tensor) -> bool:
    """Whether ZeRO-3 holds this parameter, so that this rank has only a share of it."""
    return hasattr(parameter, "ds_id")


def shape_of(parameter: Tensor) -> tuple[int, ...]:
    """The shape of the whole parameter."""
    return tuple(getattr(parameter, "ds_shape", parameter.shape))


def parameter_count(model: torch.nn.Module) -> int:
    """Number of elements of all parameters, also where this rank has only a share of them."""
    return sum(torch.Size(shape_of(parameter)).numel() for parameter in model.parameters())


@contextmanager
def whole(parameter: torch.nn.Parameter, *, changed: bool = False) -> Iterator[bool]:
    """Context in which the parameter is whole; every rank must enter it, and leaves it with the others.

    Args:
        changed: whether its values are changed in the context.

    Yields whether this rank must make the change: of a partitioned parameter, only rank 0's values count.
    """
    if not is_partitioned(parameter):
        yield True
        advanced()
        return
    import deepspeed

    with (
        deepspeed.zero.GatheredParameters([parameter], modifier_rank=0 if changed else None),
        torch.no_grad(),
    ):
        yield is_main_process()
    # NCCL's collectives are only enqueued here, and their time limit runs from then on: without waiting, rank
    # 0 would have to read or write all parameters within the limit of one
    if torch.cuda.is_initialized():
        torch.cuda.current_stream().synchronize()
    advanced()


def forget(model: torch.nn.Module) -> None:
    """Removes a trained model from what DeepSpeed keeps for the whole process; it can't be trained any more.

    Destroying an engine leaves references to its modules in a stack of the modules that are running, and in
    the cache of a method. Each of them keeps the weights, gradients and optimizer states of ZeRO-3.
    """
    from deepspeed.runtime.zero import parameter_offload, partitioned_param_coordinator

    modules = set(model.modules())
    stack = parameter_offload.FWD_MODULE_STACK
    stack[:] = [module for module in stack if module not in modules]
    caches = (thing for thing in gc.get_objects() if type(thing) is functools._lru_cache_wrapper)
    for cache in caches:  # the method's wrapper hides its own
        if cache.__module__ == partitioned_param_coordinator.__name__:
            cache.cache_clear()


def build(model_class: Any, config: Any, dtype: torch.dtype = torch.float32) -> Any:
    """Returns a model whose weights are still to be filled, partitioned if `is_active`.

    Under ZeRO-3 the DeepSpeed file determines the dtype.
    """
    from transformers.initialization import no_init_weights
    from transformers.modeling_utils import local_torch_dtype
    from transformers.utils import ContextManagers

    if is_active():
        contexts = model_class.get_init_context(dtype, False, False, False)
    else:
        contexts = [no_init_weights(), local_torch_dtype(dtype)]
    with ContextManagers(contexts):
        model = model_class(config)
    model.tie_weights()
    return model.eval()


def blueprint(model_class: Any, config: Any) -> Any:
    """A model without memory for weights, for names and shapes."""
    from transformers.initialization import no_init_weights
    from transformers.modeling_utils import set_zero3_state

    # a reward model builds its body with `from_config`, which would partition it
    with set_zero3_state(), no_init_weights(), torch.device("meta"):
        return model_class(config)


def stored_tensors(files: Sequence[Path]) -> dict[str, Stored]:
    """The tensors in safetensors files, from their headers, by their names."""
    from safetensors import safe_open

    found = {}
    for path in files:
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 (not a mapping)
                found[name] = Stored(path, name, tuple(file.get_slice(name).get_shape()))
    return found


def named_as_in(model: Any, stored: Mapping[str, Stored]) -> dict[str, Stored]:
    """Renames tensors of a file as `model` names them: files of a bare body lack the model's prefix."""
    expected, prefix = model.state_dict().keys(), model.base_model_prefix
    return {
        f"{prefix}.{name}" if name not in expected and f"{prefix}.{name}" in expected else name: tensor
        for name, tensor in stored.items()
    }


def fill(model: Any, stored: Mapping[str, Stored]) -> None:
    """Reads all parameters that are in `stored`, which is named as `named_as_in` does; every rank calls it.

    Rows that a file lacks, of a token that was added, get the mean of the others.
    """
    for name, parameter in model.named_parameters():
        if name in stored:
            with whole(parameter, changed=True) as mine:
                if mine:
                    _copy(stored[name].read(), parameter.data)
    for name, buffer in model.named_buffers():
        if name in stored:
            buffer.copy_(stored[name].read())


def _copy(source: Tensor, target: Tensor) -> None:
    target[: len(source)].copy_(source)
    if len(source) < len(target):
        target[len(source) :] = target[: len(source)].mean(dim=0)
