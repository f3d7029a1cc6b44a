"""The device of this rank, and whether cuDNN's attention is used on it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch


def device() -> torch.device:
    """This rank's GPU, or the CPU if there is none."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    _disable_cudnn_attention()
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK") or 0))


@cache
def _disable_cudnn_attention() -> None:
    """Disables cuDNN's attention, which spends 36 to 60 ms on every new shape.

    In sampling the keys become longer with every token, and batches of answers differ in length, so most
    shapes are new: on an H200 sampling was up to 7 times slower (benchmarks/results/gpu.md).
    """
    torch.backends.cuda.enable_cudnn_sdp(False)


@contextmanager
def fixed_shapes() -> Iterator[None]:
    """Context with cuDNN's attention: the fastest kernel if all batches have one shape, as packed rows do."""
    before = torch.backends.cuda.cudnn_sdp_enabled()
    torch.backends.cuda.enable_cudnn_sdp(True)
    try:
        yield
    finally:
        torch.backends.cuda.enable_cudnn_sdp(before)
