"""Both stages on two CPU ranks through the real launcher, under ZeRO-2."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from llamita.jsonl import read_rows
from llamita.settings import StageSettings

from ..helpers.rlhf import inputs_of, make_inputs, ppo, rejection


def on_two_ranks(kind: str, settings: StageSettings, inputs: dict[str, Path], out: Path) -> dict[str, Any]:
    """Runs a stage through the launcher and returns its metrics."""
    config = out.with_suffix(".yaml")
    config.parent.mkdir(parents=True, exist_ok=True)
    config.write_text(json.dumps(settings.model_dump(exclude={"inputs", "output"})))
    folders = [*(f"inputs.{name}={folder}" for name, folder in inputs.items()), f"output={out}"]
    command = [sys.executable, "-m", "llamita.cli", kind, str(config), *folders, "--processes", "2"]
    subprocess.run(command, check=True, timeout=600, cwd=out.parent)
    metrics: dict[str, Any] = json.loads((out / "manifest.json").read_text())["metrics"]
    return metrics


@pytest.mark.long
def test_two_ranks_under_zero_2(tmp_path: Path, tokenizer: Any) -> None:
    inputs = make_inputs(tmp_path / "inputs", tokenizer)
    file = tmp_path / "zero2.json"
    automatic = ("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps")
    file.write_text(
        json.dumps(
            {
                "zero_optimization": {"stage": 2},
                "bf16": {"enabled": "auto"},
                "gradient_clipping": "auto",
                **dict.fromkeys(automatic, "auto"),
            }
        )
    )
    sampled = tmp_path / "run" / "rejection"
    chosen = rejection(deepspeed=str(file))
    assert on_two_ranks("rejection", chosen, inputs_of("rejection", inputs), sampled)["samples"] == 12
    rows = read_rows(sampled / "samples.jsonl")
    assert [row["prompt"] for row in rows] == [i for i in range(3) for _ in range(4)]

    trained = tmp_path / "run" / "ppo"
    started = inputs_of("ppo", inputs) | {"start": sampled}
    measured = on_two_ranks("ppo", ppo(deepspeed=str(file)), started, trained)
    rows = read_rows(trained / "metrics.jsonl")
    assert [row["step"] for row in rows] == [1, 2]
    assert rows[1] == measured["last"]
    assert rows[1]["ppo/first_ratio_deviation"] < 1e-5
    assert rows[1]["ppo/sampler_deviation"] < 1e-4
    before, after = (
        AutoModelForCausalLM.from_pretrained(out / "model").state_dict() for out in (sampled, trained)
    )
    moved = max((after[name] - before[name]).abs().max().item() for name in after)
    assert 0 < moved < 0.1
    assert all(tensor.dtype == torch.float32 for tensor in after.values())
