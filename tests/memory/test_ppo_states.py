"""PPO's models and engines against what ranks hold while they sample, and within a step of either model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llamita.memory.account import Account
from llamita.memory.ppo import ppo as accounts
from llamita.memory.sampling import sampler
from llamita.memory.shape import Shape
from llamita.rlhf.ppo.settings import PpoSettings

from ..helpers.material import COLORS
from ..helpers.rank_processes import on_ranks
from ..helpers.repository import zero_file
from ..helpers.rlhf import ppo
from ..helpers.rows import turn, write
from ..helpers.tiny import save_tiny_model, save_tiny_reward_model

SIZES = {  # ZeRO-3 keeps no matrix of this size gathered
    "hidden_size": 512,
    "intermediate_size": 1376,
    "num_hidden_layers": 2,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
}
PARTS = ["policy weights", "policy optimizer", "critic weights", "critic optimizer", "frozen"]


def inputs(root: Path, tokenizer: Any) -> dict[str, Path]:
    """Models of six million parameters, and prompts."""
    rows = [{"messages": turn(f"what is {color} ?"), "is_safety": color == "red"} for color in COLORS]
    write(root / "prompts.jsonl", rows)
    return {
        "data": root,
        "start": save_tiny_model(root / "start" / "model", tokenizer, **SIZES).parent,
        "helpfulness": save_tiny_reward_model(root / "helpfulness", tokenizer, seed=2, **SIZES),
        "safety": save_tiny_reward_model(root / "safety", tokenizer, seed=3, **SIZES),
    }


def settings(stage: int, folder: Path, **changes: Any) -> PpoSettings:
    """Two micro-batches of a rank in each step; the ZeRO file is in bf16 on a CPU, too."""
    content = json.loads(Path(zero_file(stage)).read_text())
    content["bf16"]["enabled"] = True
    file = folder / f"zero{stage}.json"
    file.write_text(json.dumps(content))
    batches = {"episodes": 4, "mini_batch_size": 4, "micro_batch_size": 1, "critic_warmup_iterations": 0}
    return ppo(**batches, max_new_tokens=2, deepspeed=str(file), **changes)


@pytest.mark.long
@pytest.mark.parametrize("ranks", [1, 2])
def test_ranks_hold_what_is_predicted(ranks: int, tmp_path: Path, tokenizer: Any) -> None:
    chosen = [
        settings(1, tmp_path),
        settings(2, tmp_path, frozen_models="offloaded", dtype="bfloat16"),
        settings(3, tmp_path, frozen_models="sharded", dtype="bfloat16"),
    ]
    folders = {name: str(folder) for name, folder in inputs(tmp_path, tokenizer).items()}
    cases = [
        {"settings": case.model_dump(exclude={"inputs", "output"}), "inputs": folders} for case in chosen
    ]
    (tmp_path / "cases.json").write_text(json.dumps(cases))
    config = json.loads((tmp_path / "start" / "model" / "config.json").read_text())
    for found in on_ranks("held_by_ppo.py", ranks, tmp_path, str(tmp_path / "cases.json")):
        for case, held in zip(chosen, found, strict=True):
            assert sorted(held) == ["critic", "policy", "sampling"]
            predicted = accounts(case, config, ranks)
            for moment, parts in held.items():
                expected = expectation(predicted, moment, sampler(Shape.from_config(config), 2))
                if moment == "critic":
                    parts |= without_gathered(parts, expected, predicted[moment].gpu.get("gathered", 0))
                assert parts == pytest.approx(expected, rel=0.05), (case.deepspeed, moment)


def without_gathered(found: dict[str, int], expected: dict[str, int], most: int) -> dict[str, int]:
    """Weights of the policy and other tensors, without what its last pass under ZeRO-3 has left gathered."""
    remaining = {name: found[name] - expected[name] for name in ("policy weights", "others")}
    if not 0 < sum(remaining.values()) <= most:
        return found
    return {name: found[name] - size for name, size in remaining.items()}


def expectation(predicted: dict[str, Account], moment: str, copy: int) -> dict[str, int]:
    """The parts of `held`; buckets of gradients are counted where they wait."""
    account = predicted[moment]
    # no model is scoring or making passes: those that are offloaded are in the host's memory
    found = {name: account.gpu.get(name, account.host.get(name, 0)) for name in PARTS}
    others = sum(size for name, size in account.gpu.items() if name.endswith("gradients"))
    others += predicted["sampling"].gpu.get("buffers", 0)
    return found | {"others": others + (copy if moment == "sampling" else 0)}
