"""The parts of `gpu.py` that train the model of 1.1 billion parameters, and their cases."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpu_sizes import Result, Sizes, Training

if TYPE_CHECKING:
    from gpu_training import Case

ZERO = Path(__file__).resolve().parent.parent / "configs" / "deepspeed"
LIGER = {"use_liger_kernel": True}
CHECKPOINTING = {"gradient_checkpointing": True}


def pretrain(sizes: Sizes, before: Mapping[str, Any]) -> Iterator[Result]:
    """Kernels and options of `pretrain`; the default kernel unless the case names one."""
    from gpu_training import Case

    whole = _rows(sizes.speed.rows * sizes.speed.accumulation) | {"gradient_accumulation_steps": 1}
    yield from _trained(
        sizes.speed,
        before,
        [
            Case("default"),
            Case("Liger", trainer=LIGER),
            Case("sdpa", kernel="sdpa"),
            Case("checkpointing", trainer=CHECKPOINTING),
            Case("one document a row", one_document=True),
            Case("one document a row, sdpa", one_document=True, kernel="sdpa"),
            Case("one document a row, Liger", one_document=True, trainer=LIGER),
            Case("Liger, one micro-batch", trainer=LIGER | whole),
            Case("Liger, checkpointing, one micro-batch", trainer=LIGER | CHECKPOINTING | whole),
        ],
    )


def compile_(sizes: Sizes, before: Mapping[str, Any]) -> Iterator[Result]:
    """Compiled models, which take up to a minute each before their first step."""
    from gpu_training import Case

    compiled = {"torch_compile": True, "torch_compile_backend": sizes.speed.compiler}
    yield from _trained(
        sizes.speed,
        before,
        [
            Case("torch_compile", trainer=compiled),
            Case("each layer compiled", compiled_layers=True),
            Case(
                "one document a row, sdpa, torch_compile", one_document=True, kernel="sdpa", trainer=compiled
            ),
            Case("Liger, torch_compile", trainer=LIGER | compiled),
        ],
    )


def sft(sizes: Sizes, before: Mapping[str, Any]) -> Iterator[Result]:
    """Fine-tuning on packed dialogues: by default with one row of a micro-batch, and checkpointing."""
    from gpu_training import Case

    default, none = _rows(1), {"gradient_checkpointing": False}
    yield from _trained(
        replace(sizes.speed, accumulation=2 * sizes.speed.accumulation),  # with half the rows
        before,
        [
            Case("default", "sft", trainer=default),
            Case("Liger", "sft", trainer=default | LIGER),
            Case("without checkpointing", "sft", trainer=default | none),
            Case("Liger, without checkpointing", "sft", trainer=default | none | LIGER),
        ],
    )


def memory(sizes: Sizes, before: Mapping[str, Any]) -> Iterator[Result]:
    """Peak memory under the ZeRO files with one rank, beside what `llamita.memory` predicts."""
    from gpu_training import Case

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    ranks = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1"}
    os.environ |= ranks | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}  # as a launcher does
    os.environ |= {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"}  # needs no network
    files = {stage: str(ZERO / f"zero{stage}.json") for stage in (1, 2, 3)}
    yield from _trained(
        replace(sizes.speed, steps=8),
        before,
        [
            Case("ZeRO-2", deepspeed=files[2]),
            Case("ZeRO-3, checkpointing", deepspeed=files[3], trainer=CHECKPOINTING),
            Case("ZeRO-1", deepspeed=files[1]),
            Case("ZeRO-2, sft", "sft", deepspeed=files[2]),
        ],
    )


def _rows(count: int) -> dict[str, Any]:
    """A section `trainer` with another micro-batch."""
    return {"per_device_train_batch_size": count}


def _trained(training: Training, before: Mapping[str, Any], cases: Sequence[Case]) -> Iterator[Result]:
    from gpu_training import measure

    peak = before.get("peak", {}).get("tflops")
    with tempfile.TemporaryDirectory() as folder:
        for number, case in enumerate(cases):
            yield {case.name: measure(training, case, Path(folder) / str(number), peak)}
