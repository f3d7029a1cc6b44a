"""The whole stage on two CPU ranks through the real launcher, under ZeRO-2."""

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

from ..helpers.rlhf import make_inputs, settings


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
    chosen = settings(deepspeed=str(file)).model_dump(exclude={"inputs", "output"})
    config = tmp_path / "rlhf.yaml"
    config.write_text(json.dumps(chosen))
    out = tmp_path / "run" / "rlhf"
    folders = [*(f"inputs.{name}={folder}" for name, folder in inputs.items()), f"output={out}"]
    command = [sys.executable, "-m", "llamita.cli", "rlhf", str(config), *folders, "--processes", "2"]
    subprocess.run(command, check=True, timeout=600, cwd=tmp_path)

    assert json.loads((out / "manifest.json").read_text())["metrics"]["versions"][-1]["name"] == "v2"
    rows = [row for row in read_rows(out / "metrics.jsonl") if "iteration" in row]
    assert [row["iteration"] for row in rows] == [1, 2]
    assert rows[1]["first_ratio_deviation"] < 1e-5
    assert rows[1]["sampler_deviation"] < 1e-4
    assert [row["prompt"] for row in read_rows(out / "v1" / "samples.jsonl")] == [
        i for i in range(3) for _ in range(4)
    ]
    before, after = (
        AutoModelForCausalLM.from_pretrained(out / name / "model").state_dict()
        for name in ("v2/rejection", "v2/ppo")
    )
    moved = max((after[name] - before[name]).abs().max().item() for name in after)
    assert 0 < moved < 0.1
    assert all(tensor.dtype == torch.float32 for tensor in after.values())
