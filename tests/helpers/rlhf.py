"""Inputs and settings of rejection sampling and PPO on a small data set."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from llamita.rlhf.ppo.settings import PpoSettings
from llamita.rlhf.rejection.settings import RejectionSettings

from .material import COLORS, SFT
from .rows import turn, write
from .tiny import save_tiny_model, save_tiny_reward_model

# for the data of `material.write_data`
REJECTION = {
    "prompts": [{"path": "dialogues.jsonl", "format": "messages"}],
    "dialogues": SFT["dialogues"],
    "prompts_per_round": 4,
    "num_generations": 3,
    "max_new_tokens": 24,
    "max_length": 256,
    "trainer": {"max_steps": 2, "per_device_train_batch_size": 4, "learning_rate": 1e-3},
}
PPO = {
    "prompts": REJECTION["prompts"],
    "max_new_tokens": 24,
    "iterations": 2,
    "episodes": 8,
    "mini_batch_size": 4,
    "critic_warmup_iterations": 0,
    "learning_rate": 1e-3,
    "critic_learning_rate": 1e-3,
}


def make_inputs(root: Path, tokenizer: Any) -> dict[str, Path]:
    """Writes data and models with random weights; returns the inputs of both stages by name, `judge` too."""
    root.mkdir(exist_ok=True)
    write(
        root / "prompts.jsonl",
        [{"messages": turn(f"what is {c} ?"), "is_safety": c == "red"} for c in COLORS],
    )
    write(root / "dialogues.jsonl", [{"messages": turn(f"is it {c} ?", f"it is {c}")} for c in COLORS * 4])
    write(root / "gatt.jsonl", [{"instruction": "you are fine", "messages": turn("how ?", "fine") * 2}])
    sft = save_tiny_model(root / "sft" / "model", tokenizer, seed=1, spread=0.05).parent
    return {
        "data": root,
        "base": save_tiny_model(root / "base" / "model", tokenizer, spread=0.05).parent,
        "model": sft,
        "start": sft,
        "helpfulness": save_tiny_reward_model(root / "helpfulness", tokenizer, seed=2),
        "safety": save_tiny_reward_model(root / "safety", tokenizer, seed=3),
        "judge": save_tiny_reward_model(root / "judge", tokenizer, seed=4),
    }


def inputs_of(kind: str, inputs: dict[str, Path]) -> dict[str, Path]:
    """Returns those inputs of `make_inputs` that a stage requires."""
    taken = {"rejection": RejectionSettings, "ppo": PpoSettings}[kind].required_inputs
    return {name: folder for name, folder in inputs.items() if name in taken}


def rejection(**changes: Any) -> RejectionSettings:
    """Returns settings for the folders of `make_inputs`, with changes."""
    chosen = {
        "prompts": [{"path": "prompts.jsonl", "format": "prompts"}],
        "dialogues": [{"path": "dialogues.jsonl", "format": "messages"}],
        "ghost_attention": [{"path": "gatt.jsonl", "format": "messages"}],
        "prompts_per_round": 3,
        "num_generations": 4,
        "temperature": 1.0,
        "max_new_tokens": 40,
        "max_length": 64,
        "trainer": {"max_steps": 3, "per_device_train_batch_size": 4, "learning_rate": 1e-3},
    }
    return RejectionSettings.model_validate_json(json.dumps(chosen | changes))


def ppo(**changes: Any) -> PpoSettings:
    """Returns settings for the folders of `make_inputs`, with changes."""
    chosen = {
        "prompts": [{"path": "prompts.jsonl", "format": "prompts"}],
        "iterations": 2,
        "episodes": 8,
        "mini_batch_size": 4,
        "critic_warmup_iterations": 1,
        "learning_rate": 1e-3,
        "critic_learning_rate": 1e-3,
        "max_new_tokens": 40,
    }
    return PpoSettings.model_validate_json(json.dumps(chosen | changes))
