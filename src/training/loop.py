"""What `Trainer`, `SFTTrainer` and `RewardTrainer` share here: the order of rows, the run, saved weights."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import torch
from transformers import PrinterCallback, Trainer, TrainingArguments
from transformers.integrations.deepspeed import unset_hf_deepspeed_config

from ..errors import LlamitaError
from ..model.checkpoint import save_model
from . import distributed
from .callbacks import Progress
from .order import SeededOrder
from .tracking import Tracker


class OrderedTrainer(Trainer):
    """Mixed into a Trainer class: rows come in our seeded order, and no step is spent on counting FLOPs.

    The rows of a step are the same for any number of ranks and micro-batches that make up its batch. Only
    where they don't fill the last step of an epoch, several ranks repeat rows to have equally many.
    """

    row_lengths: list[int] | None = None  # tokens of each row, where rows of like length shall share a batch

    def _get_train_sampler(self, train_dataset: Any = None) -> torch.utils.data.Sampler:
        dataset = self.train_dataset if train_dataset is None else train_dataset
        return SeededOrder(len(dataset), self.args.seed, self.row_lengths, rows_per_step(self.args))

    def floating_point_ops(self, inputs: Any) -> int:
        return 0


def rows_per_step(args: TrainingArguments) -> int:
    """Rows of one optimizer step over all ranks and micro-batches: the global batch."""
    return args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size


def run_trainer(
    trainer: Trainer, tracker: Tracker, description: str, items_per_row: float, unit: str
) -> dict[str, Any]:
    """Trains to the end with progress and tracking, and says how it went.

    Returns `steps`, `train_loss` (mean over the run), `final_loss` (mean since the last but one logging
    step), `train_seconds` and `<unit>_per_second`; a row of the data holds `items_per_row` of `unit`.
    Raises LlamitaError where DeepSpeed was asked for and is not at work, or where the loss is not finite.
    """
    args = trainer.args
    if args.deepspeed and not trainer.is_deepspeed_enabled:
        raise LlamitaError(f"deepspeed: {args.deepspeed} was asked for, but accelerate left it out")
    items_per_epoch = len(trainer.train_dataset) * items_per_row
    progress = Progress(tracker, description, items_per_epoch, unit)
    trainer.add_callback(progress)
    trainer.remove_callback(PrinterCallback)
    trainer.model.config.use_cache = False  # packed rows would see each other through a cache
    started = time.monotonic()
    result = trainer.train()
    seconds = time.monotonic() - started
    trainer.model.config.use_cache = True  # what is saved is for generation
    if progress.last_loss is not None and not math.isfinite(progress.last_loss):
        raise LlamitaError(
            f"{description}: the loss is not a number after {result.global_step} steps; "
            "a lower trainer.learning_rate usually helps"
        )
    return {
        "steps": result.global_step,
        "train_loss": result.training_loss,
        "final_loss": progress.last_loss,
        "train_seconds": seconds,
        f"{unit}_per_second": trainer.state.epoch * items_per_epoch / seconds,
    }


def save_trained(trainer: Trainer, tokenizer: Any, folder: Path) -> None:
    """Writes the trained model as a plain Hugging Face folder; every rank calls it, at any ZeRO stage."""
    state = None
    if trainer.is_deepspeed_enabled:  # gathers what ZeRO-3 has spread over the ranks
        state = trainer.accelerator.get_state_dict(trainer.deepspeed)
    if distributed.is_main():
        save_model(trainer.accelerator.unwrap_model(trainer.model), tokenizer, folder, state)
    unset_hf_deepspeed_config()  # otherwise a rank that loads a model alone would wait for the others
    distributed.barrier()
