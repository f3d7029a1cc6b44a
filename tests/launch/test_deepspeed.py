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

from ..helpers.material import HELPFULNESS, PRETRAIN, SFT, write_data
from ..helpers.repository import REPOSITORY, zero_file


def start(
    script: str, stage: str, config: Path, *options: str, check: bool = True, **environment: str
) -> subprocess.CompletedProcess[str]:
    command = [str(REPOSITORY / "launch" / script), stage, str(config), *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "WANDB_MODE": "disabled", **environment}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert not check or done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done


def zero(stage: int | str) -> str:
    return f"deepspeed={zero_file(stage)}"


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


def three_stages(root: Path, script: str, out: Path, base: Path, *options: str) -> None:
    """Runs pretrain, sft and reward; the latter two start from `base`, so that rounding does not add up."""
    data = f"inputs.data={root / 'data'}"
    inputs = {"pretrain": f"tokenizer={root / 'tokenizer'}", "sft": f"model={base / 'pretrain'}"}
    inputs["reward"] = f"model={base / 'sft'}"
    for stage, given in inputs.items():
        config = root / f"{stage}.yaml"
        rows = (2 if stage == "sft" else 4) // (1 if script == "local.sh" else 2)
        batch = f"trainer.per_device_train_batch_size={rows}"
        start(script, stage, config, f"inputs.{given}", data, f"output={out / stage}", batch, *options)


@pytest.fixture(scope="module")
def alone(root: Path) -> Path:
    """The results of one process."""
    three_stages(root, "local.sh", root / "alone", root / "alone")
    return root / "alone"


@pytest.mark.long
@pytest.mark.parametrize("kind", [2, 3])
def test_two_ranks_equal_one_process(root: Path, alone: Path, kind: int) -> None:
    out = root / f"zero{kind}"
    rows_of_a_step = 2  # see three_stages; two ranks would repeat rows to fill an epoch's last step
    assert metrics(alone / "sft")["rows"] % rows_of_a_step == 0
    three_stages(root, "deepspeed.sh", out, alone, zero(kind))
    assert largest_difference(out / "pretrain", alone / "pretrain") < 1e-5
    assert largest_difference(out / "sft", alone / "sft") < 1e-5
    reward_model = AutoModelForSequenceClassification
    assert largest_difference(out / "reward", alone / "reward", reward_model) < 1e-5
    for stage, key in (("pretrain", "validation_bits_per_byte"), ("reward", "mean_score")):
        assert metrics(out / stage)[key] == pytest.approx(metrics(alone / stage)[key], rel=1e-4, abs=1e-3)
    for stage in ("pretrain", "sft", "reward"):
        for key in ("steps", "train_loss", "final_loss"):
            assert metrics(out / stage)[key] == pytest.approx(metrics(alone / stage)[key], rel=1e-4), stage
        steps = [json.loads(row)["step"] for row in (out / stage / "metrics.jsonl").read_text().splitlines()]
        assert steps == sorted(set(steps))  # one rank writes


@pytest.mark.long
def test_zero_3_saves_whole_weights_with_a_hostfile_on_one_machine(root: Path, alone: Path) -> None:
    hosts = root / "hosts"
    hosts.write_text("localhost slots=2\n")
    given = [f"inputs.tokenizer={root / 'tokenizer'}", f"inputs.data={root / 'data'}", zero(3)]
    batch = "trainer.per_device_train_batch_size=2"  # on each of two ranks
    out = root / "hosts_zero3"
    address = {"HOSTFILE": str(hosts), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29611"}
    start("deepspeed.sh", "pretrain", root / "pretrain.yaml", *given, batch, f"output={out}", **address)
    assert largest_difference(out, alone / "pretrain") < 1e-5
    bits = "validation_bits_per_byte"
    assert metrics(out)[bits] == pytest.approx(metrics(alone / "pretrain")[bits], rel=1e-4)


@pytest.mark.long
@pytest.mark.parametrize("kind", ["0", "1", "2_offload", "3_offload"])
def test_the_other_zero_files_reach_the_same_losses(root: Path, alone: Path, kind: str) -> None:
    given = [f"inputs.tokenizer={root / 'tokenizer'}", f"inputs.data={root / 'data'}", zero(kind)]
    batch = "trainer.per_device_train_batch_size=2"  # on each of two ranks
    out = root / f"zero{kind}"
    start("deepspeed.sh", "pretrain", root / "pretrain.yaml", *given, batch, f"output={out}")
    assert largest_difference(out, alone / "pretrain") < 1e-5
    for key in ("train_loss", "final_loss"):
        assert metrics(out)[key] == pytest.approx(metrics(alone / "pretrain")[key], rel=1e-4)


@pytest.mark.parametrize("script", ["local.sh", "deepspeed.sh"])
def test_without_arguments_the_scripts_explain_themselves(script: str):
    done = subprocess.run([REPOSITORY / "launch" / script], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert f"launch/{script} STAGE CONFIG.yaml" in done.stderr
    assert not re.search(r"set -euo|\$\{", done.stderr)


@pytest.mark.parametrize("kind", ["0", "1", "2", "3", "2_offload", "3_offload"])
def test_zero_files_take_their_values_from_the_trainer(kind: str):
    settings = json.loads(Path(zero_file(kind)).read_text())
    assert settings["zero_optimization"]["stage"] == int(kind[0])
    assert "optimizer" not in settings  # torch's AdamW: DeepSpeed's own would have to be compiled
    assert settings["bf16"]["enabled"] == settings["gradient_clipping"] == "auto"
