"""One rank against two, plain torch against DeepSpeed: the same weights after the same steps."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from llamita.deepspeed_file import engine_config
from llamita.model.sharded import whole
from llamita.training.engine import Engine

ROWS = 8


def model(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 6), nn.Dropout(0.5), nn.LayerNorm(6), nn.Linear(6, 1))


def data(step: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(step)
    return torch.randn(ROWS, 4, generator=generator), torch.randn(ROWS, 1, generator=generator)


def train(engine: Engine, rank: int, ranks: int, micro: int) -> list[float]:
    """Takes three steps on this rank's share of the rows, in micro-batches; returns the gradient norms."""
    norms = []
    for step in range(3):
        inputs, targets = (table[rank::ranks].split(micro) for table in data(step))
        for number, (x, y) in enumerate(zip(inputs, targets, strict=True), start=1):
            engine.backward((engine(x) - y).square().sum() / ROWS, last=number == len(inputs))
        norms.append(engine.step())
    return norms


def by_hand() -> tuple[list[float], nn.Module]:
    """The whole batch at once, in plain torch."""
    whole = model().eval()
    matrices = [p for p in whole.parameters() if p.ndim == 2]
    others = [p for p in whole.parameters() if p.ndim == 1]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=0.05, betas=(0.9, 0.95), eps=1e-5)
    norms = []
    for step in range(3):
        inputs, targets = data(step)
        optimizer.zero_grad()
        nn.functional.mse_loss(whole(inputs), targets).backward()
        norms.append(float(nn.utils.clip_grad_norm_(whole.parameters(), 1.0)))
        optimizer.step()
    return norms, whole


@pytest.mark.parametrize("micro", [8, 2])
def test_a_step_is_a_step_of_the_papers_adamw(micro: int) -> None:
    engine = Engine(model(), 0.05)
    norms = train(engine, 0, 1, micro)
    expected_norms, expected = by_hand()
    assert norms == pytest.approx(expected_norms, rel=1e-5)
    for ours, theirs in zip(engine.module.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)


def on_two_ranks(tmp_path: Path, deepspeed: str | None) -> list[dict[str, list[float]]]:
    """Runs this file's `main` on two processes and returns what each wrote."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    ranks = []
    for rank in range(2):
        environment = os.environ | {
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": "2",
            "LOCAL_WORLD_SIZE": "2",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "DS_ACCELERATOR": "cpu",
        }
        command = [sys.executable, __file__, str(tmp_path), *([deepspeed] if deepspeed else [])]
        ranks.append(subprocess.Popen(command, env=environment))
    assert [process.wait(timeout=300) for process in ranks] == [0, 0]
    return [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]


def check_two_ranks(found: list[dict[str, list[float]]]) -> None:
    norms, expected = by_hand()
    for rank in found:
        for engine in ("first", "second"):
            assert rank[f"{engine}_norms"] == pytest.approx(norms, rel=1e-4)
            weights = torch.cat([p.flatten() for p in expected.parameters()])
            torch.testing.assert_close(torch.tensor(rank[engine]), weights, atol=1e-5, rtol=1e-4)


@pytest.mark.long
def test_two_ranks_equal_one(tmp_path: Path) -> None:
    check_two_ranks(on_two_ranks(tmp_path, None))


@pytest.mark.long
@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_two_deepspeed_engines_in_one_process_equal_plain_torch(tmp_path: Path, stage: int) -> None:
    file = tmp_path / "zero.json"
    file.write_text(json.dumps({"zero_optimization": {"stage": stage}, "bf16": {"enabled": "auto"}}))
    check_two_ranks(on_two_ranks(tmp_path, str(file)))


def flat(weight: Any) -> Tensor:
    with whole(weight):
        return weight.detach().flatten().clone()


def config(deepspeed: str | None) -> dict[str, Any] | None:
    if deepspeed is None:
        return None
    return engine_config(deepspeed, gpu=False, micro_batch_size=2, accumulates=True, hidden_size=6)


def main(out: Path, deepspeed: str | None) -> None:

    from llamita import processes
    from llamita.distributed import group

    group.setup(deepspeed)
    rank = processes.rank()
    first, second = (
        Engine(model(), 0.05, deepspeed=config(deepspeed)),
        Engine(model(), 0.05, deepspeed=config(deepspeed)),
    )
    found = {}
    for name, engine in (("first", first), ("second", second)):
        found[f"{name}_norms"] = train(engine, rank, 2, 2)
        found[name] = torch.cat([flat(weight) for weight in engine.module.parameters()]).tolist()
    (out / f"{rank}.json").write_text(json.dumps(found))
    group.barrier()
    group.shutdown()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else None)
