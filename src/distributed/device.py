"""The device of this rank, and whether cuDNN's attention is used on it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch

from ..console import say


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


@cache
def report_slow_bf16() -> None:
    """Reports once if this process would compute in bf16 on a CPU that has no instructions for it.

    A product of matrices then takes 38 times as long as in fp32 (EPYC with AVX2, torch 2.13).
    """
    if device().type == "cpu" and not _has_bf16():
        say(
            "this CPU has no instructions for bfloat16, so it is many times slower than float32; set "
            "`dtype: float32` and `trainer: {bf16: false}`"
        )


def _has_bf16() -> bool:
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


@contextmanager
def fixed_shapes() -> Iterator[None]:
    """Context with cuDNN's attention: the fastest kernel if all batches have one shape, as packed rows do."""
    before = torch.backends.cuda.cudnn_sdp_enabled()
    torch.backends.cuda.enable_cudnn_sdp(True)
    try:
        yield
    finally:
        torch.backends.cuda.enable_cudnn_sdp(before)
