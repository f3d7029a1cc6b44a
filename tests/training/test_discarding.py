"""Steps after discarded gradients equal those without them, bit by bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from llamita.processes import rank
from llamita.training.engine import Engine

from ..helpers.two_ranks import on_two_deepspeed_ranks, on_two_ranks

ROWS, MICRO = 8, 2


def model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6), nn.Linear(6, 1))


def data(step: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(step)
    return torch.randn(ROWS, 4, generator=generator), torch.randn(ROWS, 1, generator=generator)


def backward(engine: Engine, step: int, *, scale: float = 1.0, parts: int = 2) -> None:
    """Backward passes of `parts` micro-batches, the second of which ends the step."""
    inputs, targets = (table[rank() :: 2].split(MICRO) for table in data(step))
    for number in range(parts):
        loss = (engine(inputs[number]) * scale - targets[number]).square().sum() / ROWS
        engine.backward(loss, last=number == 1)


def run(engine: Engine, *, discards: bool) -> tuple[list[float], list[Tensor]]:
    """Three steps, each after discarded gradients of a whole step and of a part of one."""
    norms = []
    for step in range(3):
        for parts in (2, 1) if discards else ():
            backward(engine, step + 10, scale=100.0, parts=parts)
            engine.discard_gradients()
        backward(engine, step)
        norms.append(engine.step())
    return norms, weights(engine)


def weights(engine: Engine) -> list[Tensor]:
    if not any(hasattr(parameter, "ds_id") for parameter in engine.module.parameters()):
        return [parameter.detach().clone() for parameter in engine.module.parameters()]
    import deepspeed

    with deepspeed.zero.GatheredParameters(list(engine.module.parameters())):
        return [parameter.detach().clone() for parameter in engine.module.parameters()]


def both(**options: Any) -> list[Any]:
    return [run(Engine(model(), 0.05, **options), discards=discards) for discards in (False, True)]


def check(found: list[list[Any]]) -> None:
    for (norms, expected), (others, discarded) in found:
        assert others == norms
        assert all(torch.equal(one, other) for one, other in zip(expected, discarded, strict=True))
        assert not torch.equal(expected[0], model()[0].weight), "a canary"


def test_plain_torch(tmp_path: Path) -> None:
    check(on_two_ranks(both, tmp_path))


@pytest.mark.long
@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_zero(tmp_path: Path, stage: int) -> None:
    config = {
        "zero_optimization": {"stage": stage, "stage3_param_persistence_threshold": 0},
        "data_types": {"grad_accum_dtype": "fp32"},
        "train_micro_batch_size_per_gpu": MICRO,
        "gradient_accumulation_steps": 2,
        "train_batch_size": 4 * MICRO,
    }
    check(on_two_deepspeed_ranks(lambda: both(deepspeed=config), tmp_path))
