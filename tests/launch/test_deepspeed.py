"""pretrain, sft and reward on two CPU ranks through launch/deepspeed.sh (rlhf: see tests/rlhf)."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from ..training.material import HELPFULNESS, PRETRAIN, SFT, write_data

REPOSITORY = Path(__file__).parents[2]


def start(
    script: str, stage: str, config: Path, *options: str, check: bool = True, **environment: str
) -> subprocess.CompletedProcess[str]:
    command = [str(REPOSITORY / "launch" / script), stage, str(config), *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "WANDB_MODE": "disabled", **environment}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert not check or done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done


def zero(stage: int) -> str:
    return f"deepspeed={REPOSITORY}/configs/deepspeed/zero{stage}.json"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any) -> Path:
    root = tmp_path_factory.mktemp("launch")
    tokenizer.save_pretrained(str(root / "tokenizer" / "model"))
    write_data(root / "data")
    for name, settings in (("pretrain", PRETRAIN), ("sft", SFT), ("reward", HELPFULNESS)):
        (root / f"{name}.yaml").write_text(json.dumps(settings))
    return root


def metrics(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "manifest.json").read_text())["metrics"]


def largest_difference(one: Path, other: Path, model_class: Any = AutoModelForCausalLM) -> float:
    first, second = (model_class.from_pretrained(folder / "model").state_dict() for folder in (one, other))
    assert first.keys() == second.keys()
    assert all(tensor.dtype == torch.float32 for tensor in first.values())
    return max((first[name] - second[name]).abs().max().item() for name in first)


@pytest.mark.long
def test_two_ranks_under_zero_2_train_what_one_process_trains(root: Path):
    data = f"inputs.data={root / 'data'}"
    half = "trainer.per_device_train_batch_size=2"
    for how, script, options in (("one", "local.sh", []), ("two", "deepspeed.sh", [zero(2), half])):
        out = root / how
        given = [f"inputs.tokenizer={root / 'tokenizer'}", data, f"output={out / 'pretrain'}", *options]
        start(script, "pretrain", root / "pretrain.yaml", *given)
        # both go on from the same weights, so that rounding does not add up over the stages
        given = [f"inputs.model={root / 'one' / 'pretrain'}", data, f"output={out / 'sft'}", *options]
        start(script, "sft", root / "sft.yaml", *given)
        given = [f"inputs.model={root / 'one' / 'sft'}", data, f"output={out / 'reward'}", *options]
        start(script, "reward", root / "reward.yaml", *given)
    one, two = root / "one", root / "two"
    assert largest_difference(one / "pretrain", two / "pretrain") < 2e-3
    assert largest_difference(one / "sft", two / "sft") < 2e-3
    assert largest_difference(one / "reward", two / "reward", AutoModelForSequenceClassification) < 2e-3
    for stage in ("pretrain", "sft", "reward"):
        for key in ("steps", "train_loss", "final_loss"):
            assert metrics(two / stage)[key] == pytest.approx(metrics(one / stage)[key], rel=1e-2), (
                stage,
                key,
            )
        steps = [json.loads(row)["step"] for row in (two / stage / "metrics.jsonl").read_text().splitlines()]
        assert steps == sorted(set(steps))  # one rank writes


@pytest.mark.long
def test_zero_3_saves_whole_weights_with_a_hostfile_on_one_machine(root: Path):
    hosts = root / "hosts"
    hosts.write_text("localhost slots=2\n")
    given = [f"inputs.tokenizer={root / 'tokenizer'}", f"inputs.data={root / 'data'}", zero(3)]
    out = root / "zero3"
    address = {"HOSTFILE": str(hosts), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29611"}
    start("deepspeed.sh", "pretrain", root / "pretrain.yaml", *given, f"output={out}", **address)
    model = AutoModelForCausalLM.from_pretrained(out / "model")
    assert model.lm_head.weight.shape[1] == 32
    assert metrics(out)["validation_bits_per_byte"] < metrics(out)["unigram_bits_per_byte"] * 1.5


@pytest.mark.parametrize("script", ["local.sh", "deepspeed.sh"])
def test_without_arguments_the_scripts_explain_themselves(script: str):
    done = subprocess.run([REPOSITORY / "launch" / script], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert f"launch/{script} STAGE CONFIG.yaml" in done.stderr
    assert not re.search(r"set -euo|\$\{", done.stderr)


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_zero_files_leave_to_the_trainer_what_it_knows(stage: int):
    settings = json.loads((REPOSITORY / "configs" / "deepspeed" / f"zero{stage}.json").read_text())
    assert settings["zero_optimization"]["stage"] == stage
    assert "optimizer" not in settings  # torch's AdamW: DeepSpeed's own would have to be compiled
    assert settings["bf16"]["enabled"] == settings["gradient_clipping"] == "auto"
