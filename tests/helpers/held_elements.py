"""Counts the elements of floating-point tensors that a process holds while it does something."""

from __future__ import annotations

from typing import Any

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class HeldElements(TorchDispatchMode):
    """Context that follows the memory of every tensor that an operation returns, until it is freed.

    Memory counts once, however many tensors share it; one element are four bytes. Not counted: integers,
    tensors that existed before, and files that are memory-mapped.

    Attributes:
        now: elements that are held.
        most: the largest number that was held at any time.
    """

    def __init__(self) -> None:
        super().__init__()
        self._storages: dict[int, tuple[StorageWeakRef, int]] = {}
        self.most = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor) and tensor.is_floating_point() and not tensor.is_meta:
                storage = tensor.untyped_storage()
                self._storages[storage._cdata] = StorageWeakRef(storage), storage.nbytes() // 4
        self.most = max(self.most, self.now)
        return result

    @property
    def now(self) -> int:
        self._storages = {key: held for key, held in self._storages.items() if not held[0].expired()}
        return sum(size for _, size in self._storages.values())
