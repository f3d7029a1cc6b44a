"""Speed of fine-tuning on packed dialogues, compared with plain `trl.SFTTrainer`.

    python benchmarks/sft.py MODEL_FOLDER DATA_FOLDER FILE FORMAT [ROUNDS]

for example `models/SmolLM2-135M-Instruct DATA seed_tasks/seed_tasks.jsonl seed_tasks`. Two models:
MODEL_FOLDER's in bf16, and a small one with the same tokenizer in fp32. Every method trains on the same
dialogues with the loss on answer tokens only. In each round every method runs once, in a process of its
own; the table shows medians. Only tokens of dialogues are counted, not pads.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import torch
from interleaved import compare, report_result
from transformers import LlamaForCausalLM
from trl import SFTConfig, SFTTrainer

from llamita.chat_format.encoding import Encoded, encode_dialogues
from llamita.chat_format.packing import PackedCollator, packed_row, plan_rows
from llamita.data.sources import read_dialogues
from llamita.model.checkpoint import load_causal_lm, load_tokenizer
from llamita.model.padding import UNTRAINED
from llamita.model.sizes import ModelSize
from llamita.settings import Source
from llamita.training.arguments import training_arguments
from llamita.training.attention import attending_within_segments
from llamita.training.finetune import PackedTrainer
from llamita.training.loop import run_trainer
from llamita.training.tracking import Tracker

SIZES = ("small", "MODEL_FOLDER")
LENGTH = 1024  # tokens of a packed row; longer dialogues are dropped for every method
ROWS = 2  # packed rows per step
WARM, STEPS = 2, {"small": 10, "MODEL_FOLDER": 4}


class Material:
    """Dialogues, a model and its tokenizer."""

    def __init__(self, size: str, folder: str, root: str, path: str, format: str) -> None:
        self.tokenizer = load_tokenizer(Path(folder))
        source = Source.model_validate({"path": path, "format": format})
        encoded = encode_dialogues(self.tokenizer, read_dialogues([source], Path(root)))
        self.dialogues: list[Encoded] = [row for row in encoded if len(row.input_ids) <= LENGTH]
        self.tokens_each = statistics.mean(len(row.input_ids) for row in self.dialogues)
        self.steps = WARM + STEPS[size]
        self.bf16 = size != "small"
        if size == "small":
            torch.manual_seed(0)
            shape = ModelSize(
                hidden_size=128,
                intermediate_size=352,
                num_hidden_layers=4,
                num_attention_heads=4,
                num_key_value_heads=4,
                max_position_embeddings=LENGTH,
            )
            self.model: Any = LlamaForCausalLM(shape.llama_config(len(self.tokenizer)))
        else:
            self.model = load_causal_lm(Path(folder))

    def section(self, rows: int) -> dict[str, Any]:
        return {
            "max_steps": self.steps,
            "per_device_train_batch_size": rows,
            "learning_rate": 1e-5,
            "bf16": self.bf16,
            "save_steps": 10**6,
        }


class Ticking:
    """Trainer mix-in: counts tokens (without pads) and seconds of the steps after the warm-up steps."""

    steps = tokens = 0
    pad: int

    def training_step(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        loss = super().training_step(model, inputs, *args, **kwargs)  # type: ignore[misc]  # the trainer's
        self.steps += 1
        if self.steps > WARM:
            self.tokens += int((inputs["input_ids"] != self.pad).sum())
            self.ended = time.perf_counter()
        elif self.steps == WARM:
            self.started = time.perf_counter()
        return loss

    def rate(self) -> float:
        return self.tokens / (self.ended - self.started)


class TickingOurs(Ticking, PackedTrainer):
    pass


class TickingTrl(Ticking, SFTTrainer):
    pass


def ours(material: Material, out: Path) -> float:
    dialogues, pad = material.dialogues, material.tokenizer.pad_token_id
    rows = [
        packed_row([one.input_ids for one in parts], [one.labels for one in parts], LENGTH, pad_token_id=pad)
        for plan in plan_rows([len(one.input_ids) for one in dialogues], LENGTH, seed=0)
        if (parts := [dialogues[index] for index in plan])
    ]
    columns = {name: [row[name] for row in rows] for name in ("input_ids", "labels", "position_ids")}
    arguments = training_arguments(
        SFTConfig,
        material.section(ROWS),
        out,
        seed=0,
        max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True},
    )
    trainer = TickingOurs(
        model=material.model,
        args=arguments,
        train_dataset=datasets.Dataset.from_dict(columns).with_format("numpy"),
        data_collator=PackedCollator(),
        processing_class=material.tokenizer,
        description="ours",
    )
    trainer.pad = material.tokenizer.pad_token_id
    with Tracker(out, {}) as tracker, attending_within_segments(material.model):
        run_trainer(trainer, tracker, items_per_row=LENGTH, unit="tokens")
    return trainer.rate()


def trl(material: Material, out: Path, rows: int, **changes: Any) -> float:
    columns = {
        "input_ids": [list(row.input_ids) for row in material.dialogues],
        "completion_mask": [[int(label != UNTRAINED) for label in row.labels] for row in material.dialogues],
    }
    options = {"max_length": LENGTH, "completion_only_loss": True, **changes}
    arguments = training_arguments(SFTConfig, material.section(rows) | options, out, seed=0)
    trainer = TickingTrl(
        model=material.model,
        args=arguments,
        train_dataset=datasets.Dataset.from_dict(columns),
        processing_class=material.tokenizer,
    )
    trainer.pad = material.tokenizer.pad_token_id
    trainer.model.config.use_cache = False
    trainer.train()
    return trainer.rate()


def dialogues_per_step(material: Material) -> int:
    """Number of dialogues that have about as many tokens as a step's packed rows."""
    return max(1, round(ROWS * LENGTH / material.tokens_each))


METHODS: dict[str, Callable[[Material, Path], float]] = {
    "ours": ours,
    "TRL, padded": lambda material, out: trl(material, out, dialogues_per_step(material)),
    "TRL, padded, grouped by length": lambda material, out: trl(
        material, out, dialogues_per_step(material), train_sampling_strategy="group_by_length"
    ),
    "TRL, packed": lambda material, out: trl(material, out, ROWS, packing=True),
}


def measure(method: str, size: str, *data: str) -> None:
    """Prints tokens per second and peak memory as JSON; runs in a process of its own."""
    material = Material(size, *data)
    with tempfile.TemporaryDirectory() as out:
        rate = METHODS[method](material, Path(out))
    report_result(rate)


def main() -> None:
    if sys.argv[1] in METHODS:
        measure(*sys.argv[1:])
        return
    rounds = int(sys.argv[5]) if len(sys.argv) > 5 else 3
    compare(__file__, METHODS, SIZES, sys.argv[1:5], rounds, "ours")


if __name__ == "__main__":
    main()
