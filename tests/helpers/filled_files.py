"""Fills the `auto` values of ZeRO files as the stages do, for the paper's models on the meta device.

Run by tests/memory/test_account.py: `python filled_files.py OUT ZERO_FILE…` writes `OUT/filled.json`: for
each file, model and stage the number of parameters and the file's content.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification, TrainingArguments
from trl import RewardConfig, SFTConfig

from llamita.distributed import group
from llamita.training.arguments import training_arguments

if __name__ == "__main__":  # run as a script, without the package of the tests
    sys.path.insert(0, str(Path(__file__).parent))
    from paper_shapes import PAPER

STAGES: dict[str, tuple[Any, Any]] = {
    "pretrain": (TrainingArguments, LlamaForCausalLM),
    "sft": (SFTConfig, LlamaForCausalLM),
    "reward": (RewardConfig, LlamaForSequenceClassification),
}


def main(out: Path, files: list[str]) -> None:
    """Writes the filled files."""
    models = []
    for size, config in PAPER.items():
        for stage, (kind, model_class) in STAGES.items():
            with torch.device("meta"):  # before any arguments: under ZeRO-3 they would partition the weights
                models.append((size, stage, kind, model_class(LlamaConfig(**config, num_labels=1))))
    group.setup(files[0])
    found = []
    for size, stage, kind, model in models:
        parameters = sum(parameter.numel() for parameter in model.parameters())
        for file in files:
            section = {"bf16": True, "per_device_train_batch_size": 1, "max_steps": 2}
            arguments = training_arguments(kind, section, out, seed=0, deepspeed=file)
            filled = arguments.hf_deepspeed_config
            filled.trainer_config_finalize(arguments, model, 2)
            found.append([file, size, stage, parameters, filled.config])
    (out / "filled.json").write_text(json.dumps(found))
    group.shutdown()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
