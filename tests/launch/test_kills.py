"""After many SIGKILLs at random moments the result equals that of an undisturbed run, bit by bit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llamita.artifact import RESUME

from ..helpers.kills import Run, run_undisturbed, run_with_kills, without_clocks
from ..helpers.long_pretraining import OFTEN, pretraining
from ..helpers.material import HELPFULNESS, SFT
from ..helpers.repository import zero_file
from ..helpers.rlhf import inputs_of, make_inputs, ppo, rejection
from ..helpers.stage_processes import command


def result(out: Path) -> dict[str, Any]:
    """All weights, tokens and numbers in a stage's folder."""
    metrics = json.loads((out / "manifest.json").read_text())["metrics"]
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    files = sorted([*out.rglob("*.safetensors"), *out.rglob("*.bin"), *out.rglob("samples.jsonl")])
    return {
        "metrics": without_clocks(metrics),
        "logged": without_clocks(rows),
        "files": {str(path.relative_to(out)): path.read_bytes() for path in files},
    }


def check(
    root: Path, stage: str, chosen: dict[str, Any], inputs: dict[str, Path], kills: int, ranks: int = 1
) -> None:
    config = root / f"{stage}.yaml"
    config.write_text(json.dumps(chosen))
    log, out, undisturbed = root / "log", root / "killed" / stage, root / "undisturbed" / stage
    idle, busy = run_undisturbed(Run(command(stage, config, undisturbed, inputs, ranks), undisturbed, log))
    run_with_kills(Run(command(stage, config, out, inputs, ranks), out, log), kills, idle=idle, busy=busy)
    found, expected = result(out), result(undisturbed)
    assert found["files"].keys() == expected["files"].keys()
    assert found["files"] == expected["files"]
    assert found["metrics"] == expected["metrics"]
    assert found["logged"] == expected["logged"]
    assert not (out / RESUME).exists()


@pytest.mark.long
def test_pretraining_killed_ten_times(root: Path) -> None:
    check(root, "pretrain", *pretraining(root), kills=10)


@pytest.mark.long
@pytest.mark.parametrize("zero", [2, 3])
def test_two_ranks_of_pretraining_killed_ten_times(root: Path, zero: int) -> None:
    check(root, "pretrain", *pretraining(root, deepspeed=zero_file(zero)), kills=10, ranks=2)


@pytest.mark.long
def test_the_other_stages_killed_three_times(root: Path, tokenizer: Any) -> None:
    inputs = make_inputs(root / "rlhf", tokenizer)
    data = {"data": root / "data"}
    sft = SFT | {"trainer": SFT["trainer"] | OFTEN | {"num_train_epochs": 20}}
    check(root, "sft", sft, data | {"model": inputs["base"]}, kills=3)
    reward = HELPFULNESS | {"trainer": HELPFULNESS["trainer"] | OFTEN | {"num_train_epochs": 20}}
    check(root, "reward", reward, data | {"model": inputs["start"]}, kills=3)
    sampling = rejection(trainer=rejection().trainer | OFTEN | {"save_steps": 1})
    for kind, chosen in (("rejection", sampling), ("ppo", ppo(save_iterations=1))):
        values = chosen.model_dump(mode="json", exclude={"inputs", "output"})
        check(root, kind, values, inputs_of(kind, inputs), kills=3)
