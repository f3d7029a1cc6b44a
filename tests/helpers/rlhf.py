"""Inputs and settings of RLHF on a page of data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from llamita.rlhf.settings import RlhfSettings

from .material import COLORS, SFT
from .rows import turn, write
from .tiny import save_tiny_model, save_tiny_reward_model

# for the data of `material.write_data`
RLHF = {
    "prompts": [{"path": "dialogues.jsonl", "format": "messages"}],
    "dialogues": SFT["dialogues"],
    "rounds": [{"name": "v1", "prompts": 4, "samples_per_prompt": 3, "ppo": True}],
    "ppo": {
        "iterations": 2,
        "episodes": 8,
        "mini_batch_size": 4,
        "critic_warmup_iterations": 0,
        "learning_rate": 1e-3,
        "critic_learning_rate": 1e-3,
    },
    "max_new_tokens": 24,
    "row_length": 256,
    "trainer": {"max_steps": 2, "per_device_train_batch_size": 4, "learning_rate": 1e-3},
}


def make_inputs(root: Path, tokenizer: Any) -> dict[str, Path]:
    """The stage's inputs by name: data, and models of random weights."""
    root.mkdir(exist_ok=True)
    write(
        root / "prompts.jsonl",
        [{"messages": turn(f"what is {c} ?"), "is_safety": c == "red"} for c in COLORS],
    )
    write(root / "dialogues.jsonl", [{"messages": turn(f"is it {c} ?", f"it is {c}")} for c in COLORS * 4])
    write(root / "gatt.jsonl", [{"instruction": "you are fine", "messages": turn("how ?", "fine") * 2}])
    return {
        "data": root,
        "base": save_tiny_model(root / "base" / "model", tokenizer, spread=0.05).parent,
        "sft": save_tiny_model(root / "sft" / "model", tokenizer, seed=1, spread=0.05).parent,
        "helpfulness": save_tiny_reward_model(root / "helpfulness", tokenizer, seed=2),
        "safety": save_tiny_reward_model(root / "safety", tokenizer, seed=3),
    }


def settings(**changes: Any) -> RlhfSettings:
    """Two rounds, the second with PPO, for the folders of `make_inputs`."""
    chosen = {
        "prompts": [{"path": "prompts.jsonl", "format": "prompts"}],
        "dialogues": [{"path": "dialogues.jsonl", "format": "messages"}],
        "ghost_attention": [{"path": "gatt.jsonl", "format": "messages"}],
        "rounds": [
            {"name": "v1", "prompts": 3, "samples_per_prompt": 4, "temperature": 1.0},
            {"name": "v2", "prompts": 3, "samples_per_prompt": 4, "temperature": 1.0, "ppo": True},
        ],
        "ppo": {
            "iterations": 2,
            "episodes": 8,
            "mini_batch_size": 4,
            "critic_warmup_iterations": 1,
            "learning_rate": 1e-3,
            "critic_learning_rate": 1e-3,
        },
        "max_new_tokens": 40,
        "row_length": 64,
        "trainer": {"max_steps": 3, "per_device_train_batch_size": 4, "learning_rate": 1e-3},
    }
    return RlhfSettings.model_validate_json(json.dumps(chosen | changes))
