"""The device of this rank, and which attention kernels suit it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch


def device() -> torch.device:
    """Returns this rank's own GPU, or the CPU if there is none."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    _avoid_plans_per_shape()
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK") or 0))


@cache
def _avoid_plans_per_shape() -> None:
    """Turns cuDNN's attention off: it builds a plan for every new shape, about 60 ms each.

    Sampling lengthens the keys with every token, and batches of answers differ in length, so that most shapes
    are new. Measured on an H200: sampling was 7 times slower (benchmarks/results/gpu.md).
    """
    torch.backends.cuda.enable_cudnn_sdp(False)


@contextmanager
def fixed_shapes() -> Iterator[None]:
    """Allows cuDNN's attention: the fastest kernel where all batches have one shape, as packed rows do."""
    before = torch.backends.cuda.cudnn_sdp_enabled()
    torch.backends.cuda.enable_cudnn_sdp(True)
    try:
        yield
    finally:
        torch.backends.cuda.enable_cudnn_sdp(before)
