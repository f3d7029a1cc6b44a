"""A run resumes on another number of ranks and with another ZeRO stage."""

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
    """Starts or resumes the run, up to a checkpoint or to its end; returns its output."""
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
def test_ranks_and_zero_stages_may_change_when_resuming(root: Path) -> None:
    alone, out = root / "alone", root / "changed"
    begin(root, alone, 1, None, trainer={"gradient_accumulation_steps": 2})
    begin(root, out, 2, 12, deepspeed=zero_file(2))
    output = begin(root, out, 2, 27, deepspeed=zero_file(3))
    assert "saved by 2 ranks with ZeRO-2, resuming on 2 with ZeRO-3" in output
    output = begin(root, out, 2, 42, deepspeed=zero_file(1), trainer={"save_steps": 5})
    assert "resuming on 2 with ZeRO-1" in output
    one_rank = {"gradient_accumulation_steps": 2}
    output = begin(root, out, 1, None, trainer=one_rank)
    assert "it was saved with ZeRO-1, this run is without DeepSpeed" in output
    output = begin(root, out, 1, None, deepspeed=zero_file(2))
    assert "set trainer.gradient_accumulation_steps to 2" in output
    output = begin(root, out, 1, None, deepspeed=zero_file(2), trainer=one_rank)
    assert "saved by 2 ranks with ZeRO-1, resuming on 1 with ZeRO-2" in output
    for row, other in zip(logged(alone), logged(out), strict=True):
        assert row["step"] == other["step"]
        assert row["train/loss"] == pytest.approx(other["train/loss"], abs=1e-5)
    expected, found = weights(alone), weights(out)
    assert max((found[name] - expected[name]).abs().max().item() for name in expected) < 1e-5
