"""A run goes on with other ranks and under another ZeRO stage."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM

from llamita.artifact import RESUME, working_folder
from llamita.checkpoints.sealed import Checkpoints

from ..helpers.long_pretraining import pretraining
from ..helpers.repository import zero_file
from ..helpers.stage_processes import command, kill, start, wait


def begin(root: Path, out: Path, ranks: int, until: int | None, **changes: Any) -> str:
    """Starts the run or goes on with it, up to a checkpoint or to its end; returns what it said."""
    trainer = {"max_steps": 60, "per_device_train_batch_size": 2, **changes.pop("trainer", {})}
    chosen, inputs = pretraining(root)
    chosen |= changes | {"trainer": chosen["trainer"] | trainer}
    config, log = root / "pretrain.yaml", root / f"{out.name}-{until}.log"
    config.write_text(json.dumps(chosen))
    process = start(command("pretrain", config, out, inputs, ranks), log)
    folder = working_folder(out) / RESUME
    if until is None:
        process.wait(300)
    else:
        assert wait(
            process, lambda: any(s >= until for s in map(Checkpoints.step, folder.glob("checkpoint-*")))
        )
        kill(process)
    return log.read_text()


def weights(out: Path) -> dict[str, Any]:
    return AutoModelForCausalLM.from_pretrained(out / "model").state_dict()


def logged(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.long
def test_ranks_and_zero_stages_may_change_on_the_way(root: Path) -> None:
    alone, out = root / "alone", root / "changed"
    begin(root, alone, 1, None, trainer={"gradient_accumulation_steps": 2})
    begin(root, out, 2, 12, deepspeed=zero_file(2))
    told = begin(root, out, 2, 27, deepspeed=zero_file(3))
    assert "saved by 2 ranks under ZeRO-2, going on with 2 under ZeRO-3" in told
    told = begin(root, out, 2, 42, deepspeed=zero_file(1), trainer={"save_steps": 5})
    assert "going on with 2 under ZeRO-1" in told
    one_rank = {"gradient_accumulation_steps": 2}
    told = begin(root, out, 1, None, trainer=one_rank)
    assert "saved under ZeRO-1, to go on without DeepSpeed; expected the same" in told
    told = begin(root, out, 1, None, deepspeed=zero_file(2))
    assert "set trainer.gradient_accumulation_steps to 2" in told
    told = begin(root, out, 1, None, deepspeed=zero_file(2), trainer=one_rank)
    assert "saved by 2 ranks under ZeRO-1, going on with 1 under ZeRO-2" in told
    for row, other in zip(logged(alone), logged(out), strict=True):
        assert row["step"] == other["step"]
        assert row["train/loss"] == pytest.approx(other["train/loss"], abs=1e-5)
    expected, found = weights(alone), weights(out)
    assert max((found[name] - expected[name]).abs().max().item() for name in expected) < 1e-5
