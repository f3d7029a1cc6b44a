"""Gradients of many micro-batches under the ZeRO files in bf16: added up in fp32, or refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ..helpers.repository import zero_file

ERRORS = """
import copy, json, sys
import torch
from llamita.distributed.group import _without_compiler
import deepspeed
from deepspeed.utils import safe_get_full_fp32_param

BATCHES = 64

def error(file):
    # relative error of the gradient of 64 micro-batches, measured by a step of SGD at rate 1, against fp32
    torch.manual_seed(0)
    model = torch.nn.Linear(64, 32, bias=False)
    exact = copy.deepcopy(model).to(torch.bfloat16).float()  # the same weights
    config = json.load(open(file))
    sizes = {"train_micro_batch_size_per_gpu": 4, "gradient_accumulation_steps": BATCHES}
    config |= sizes | {"train_batch_size": 4 * BATCHES, "gradient_clipping": 0.0}
    config["bf16"]["enabled"], config["fp16"]["enabled"] = True, False
    config["zero_allow_untested_optimizer"] = True
    zero = config["zero_optimization"]
    zero |= {key: 1000 for key, value in zero.items() if value == "auto"}
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    engine, *_ = deepspeed.initialize(
        model=model, optimizer=optimizer, config=config, dist_init_required=False
    )
    weight = next(engine.module.parameters())
    before = safe_get_full_fp32_param(weight).clone()
    for _ in range(BATCHES):
        rows, targets = (torch.randn(4, size).to(torch.bfloat16) for size in (64, 32))
        (((exact(rows.float()) - targets.float()) ** 2).mean() / BATCHES).backward()
        engine.backward(((engine(rows).float() - targets.float()) ** 2).mean())
        engine.step()
    moved = before - safe_get_full_fp32_param(weight)
    return float((moved - exact.weight.grad).norm() / exact.weight.grad.norm())

torch.distributed.init_process_group("gloo")
_without_compiler()
print("ERRORS " + json.dumps([error(file) for file in sys.argv[1:]]))
"""


@pytest.mark.parametrize("kind", ["1", "2", "2_offload", "3", "3_offload"])
def test_the_files_add_up_gradients_in_fp32(kind: str) -> None:
    settings = json.loads(Path(zero_file(kind)).read_text())
    assert settings["data_types"] == {"grad_accum_dtype": "fp32"}


@pytest.mark.long
def test_many_micro_batches_are_as_exact_as_one() -> None:
    """In bf16, 64 micro-batches err by 0.9%, one by 0.26%."""
    files = [zero_file(kind) for kind in ("1", "2", "2_offload", "3", "3_offload")]
    ranks = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1"}
    environment = os.environ | ranks | {"MASTER_PORT": "29637", "DS_ACCELERATOR": "cpu"}
    command = [sys.executable, "-c", ERRORS, *files]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    reported = [line for line in done.stdout.splitlines() if line.startswith("ERRORS ")]
    assert reported, done.stderr[-4000:]
    errors = json.loads(reported[0].removeprefix("ERRORS "))
    assert all(error < 0.004 for error in errors), errors
