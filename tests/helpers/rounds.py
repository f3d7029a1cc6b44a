"""A pipeline with three rounds of real stages; the models are so small that a stage takes seconds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .material import HELPFULNESS, SFT, write_data
from .rlhf import PPO, REJECTION
from .tiny import save_tiny_model, save_tiny_reward_model

PIPELINE = """\
name: rounds
roots: {data: ../data, base: ../base, judge: ../judge, safety: ../safety}
stages:
  - {name: sft, stage: sft, config: sft.yaml, inputs: {model: base, data: data}}
  - rounds: [v1, v2, v3]
    previous: sft
    stages:
      - name: rejection
        stage: rejection
        config: rejection.yaml
        inputs:
          base: base
          model: previous
          selections: all.rejection
          helpfulness: judge
          safety: safety
          data: data
      - {name: reward, stage: reward, config: reward.yaml, inputs: {model: rejection, data: data}}
      - name: ppo
        stage: ppo
        config: ppo.yaml
        only: [v2, v3]
        inputs: {start: rejection, helpfulness: reward, safety: safety, data: data}
  - name: evaluate
    stage: evaluate
    config: evaluate.yaml
    inputs: {sft: sft, versions: all, helpfulness: v3/reward, safety: safety, data: data}
  - {name: report, stage: report}
"""
NAMES = [
    *("sft", "v1/rejection", "v1/reward", "v2/rejection", "v2/reward", "v2/ppo"),
    *("v3/rejection", "v3/reward", "v3/ppo", "evaluate", "report"),
]


def write_project(root: Path, tokenizer: Any) -> Path:
    """Writes data, models and settings below `root`; returns the path of the pipeline."""
    write_data(root / "data")
    save_tiny_model(root / "base" / "model", tokenizer, spread=0.05)
    save_tiny_reward_model(root / "judge", tokenizer, seed=2)
    save_tiny_reward_model(root / "safety", tokenizer, seed=3)
    often = {"save_steps": 3, "logging_steps": 2}
    settings = {
        "sft": SFT | {"trainer": SFT["trainer"] | often | {"num_train_epochs": 20}},
        "rejection": REJECTION
        | {
            "trainer": REJECTION["trainer"] | often | {"max_steps": 40},
            "max_length": 104,
            "num_generations": 8,
        },
        "reward": HELPFULNESS | {"trainer": HELPFULNESS["trainer"] | often},
        "ppo": PPO | {"iterations": 12, "save_iterations": 1},
        "evaluate": {
            "gold": False,
            "prompts": {"ordinary": REJECTION["prompts"]},
            "max_new_tokens": 24,
        },
    }
    configs = root / "configs"
    configs.mkdir()
    for name, values in settings.items():
        (configs / f"{name}.yaml").write_text(json.dumps(values))
    pipeline = configs / "pipeline.yaml"
    pipeline.write_text(PIPELINE)
    return pipeline
