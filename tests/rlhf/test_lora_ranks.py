"""PPO of adapters on two ranks whose base model ZeRO-3 has partitioned: the results of one process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from llamita.reward import stage as reward
from llamita.reward.settings import RewardSettings
from llamita.rlhf.ppo import stage as ppo_stage
from llamita.rlhf.ppo.settings import PpoSettings
from llamita.rlhf.rejection import stage as rejection_stage
from llamita.rlhf.rejection.settings import RejectionSettings

from ..helpers.lora import LORA, tune
from ..helpers.material import HELPFULNESS, SAFETY, write_data
from ..helpers.repository import zero_file
from ..helpers.rlhf import PPO, REJECTION
from ..helpers.stage_runs import run
from ..helpers.tiny import save_tiny_model
from ..helpers.two_ranks import on_two_deepspeed_ranks

pytestmark = pytest.mark.usefixtures("without_wandb")

REWARD_MODELS = {"helpfulness": "helpfulness", "safety": "safety"}
EXACT = 1e-5  # largest difference of a weight of the adapter


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any) -> Path:
    """A folder with adapters of a policy and of both reward models."""
    root = tmp_path_factory.mktemp("lora")
    write_data(root / "data")
    save_tiny_model(root / "base", tokenizer, spread=0.05)
    tune(root, "sft", 6, LORA)
    for name, base in (("helpfulness", HELPFULNESS), ("safety", SAFETY)):
        chosen = base | {"lora": LORA, "trainer": base["trainer"] | {"max_steps": 3}}
        run(reward, RewardSettings, chosen, root, name, model="sft")
    return root


def adapter_difference(one: Path, other: Path) -> float:
    ours, theirs = (load_file(folder / "adapter" / "adapter_model.safetensors") for folder in (one, other))
    assert ours.keys() == theirs.keys()
    return max((ours[name] - theirs[name]).abs().max().item() for name in ours)


@pytest.mark.long
def test_ppo_with_a_partitioned_base_model(root: Path, tmp_path: Path) -> None:
    alone = run(ppo_stage, PpoSettings, PPO | {"lora": LORA}, root, "alone", start="sft", **REWARD_MODELS)
    chosen = PPO | {"lora": LORA, "deepspeed": zero_file(3)}

    metrics, _ = on_two_deepspeed_ranks(
        lambda: run(ppo_stage, PpoSettings, chosen, root, "ranks", start="sft", **REWARD_MODELS), tmp_path
    )
    assert adapter_difference(root / "alone", root / "ranks") < EXACT
    assert adapter_difference(root / "alone", root / "sft") > 100 * EXACT
    for name in ("ppo/kl", "ppo/reward", "ppo/policy_loss", "ppo/value_loss"):
        assert metrics["last"][name] == pytest.approx(alone["last"][name], rel=1e-3, abs=1e-4)
    merged, expected = (load_file(root / name / "model" / "model.safetensors") for name in ("ranks", "alone"))
    assert max((merged[name] - expected[name]).abs().max().item() for name in expected) < EXACT


@pytest.mark.long
def test_rejection_sampling_with_a_partitioned_base_model(root: Path, tmp_path: Path) -> None:
    values = REJECTION | {"lora": LORA, "max_length": 104}
    taken = {"base": "base", "model": "sft", **REWARD_MODELS}
    run(rejection_stage, RejectionSettings, values, root, "one", **taken)
    halved = values["trainer"] | {"per_device_train_batch_size": 2}
    values |= {"trainer": halved, "deepspeed": zero_file(3), "frozen_models": "sharded"}
    on_two_deepspeed_ranks(
        lambda: run(rejection_stage, RejectionSettings, values, root, "two", **taken), tmp_path
    )
    assert adapter_difference(root / "one", root / "two") < EXACT
