"""State that a Trainer needs to resume exactly and that transformers' checkpoints don't contain."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ..distributed.group import gather_rows
from ..errors import ConfigError
from .arguments import rows_per_step
from .trainer_internals import TrainerInternals

SUMS = "sums.json"  # in a checkpoint: a list with one entry per rank
Sums = dict[str, float]


class Resumption(TrainerCallback):
    """Restores the sums that were saved in a checkpoint.

    Args:
        trainer: the trainer that this callback belongs to.
        checkpoint: the checkpoint to resume from; None: training starts from the beginning.
    """

    def __init__(self, trainer: TrainerInternals, checkpoint: Path | None) -> None:
        self._trainer, self._checkpoint = trainer, checkpoint
        self._started = time.monotonic()

    def seconds(self) -> float:
        """Seconds of training, including those before the checkpoint."""
        return time.monotonic() - self._started

    def sums(self) -> list[Sums]:
        """The content of `SUMS`; every rank calls it and gets the entries of all."""
        own: Sums = self._trainer.loss_sums()
        own |= {"seconds": self.seconds(), "rows_per_step": rows_per_step(self._trainer.args)}
        return gather_rows([own])

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self._started = time.monotonic()
        if self._checkpoint is None:
            return
        entries = _read(self._checkpoint)
        own = entries[args.process_index] if len(entries) == args.world_size else _mean(entries)
        self._trainer.restore_loss_sums(own)
        self._started -= own["seconds"]


def _read(checkpoint: Path) -> list[Sums]:
    entries: list[Sums] = json.loads((checkpoint / SUMS).read_text(encoding="utf-8"))
    return entries


def check_rows_per_step(checkpoint: Path, args: TrainingArguments) -> None:
    """Checks that the global batch size is unchanged: data position and learning rate are counted in steps.

    Raises ConfigError if it has changed.
    """
    before, now = int(_read(checkpoint)[0]["rows_per_step"]), rows_per_step(args)
    if before == now:
        return
    micro, ranks = args.per_device_train_batch_size, args.world_size
    steps, remainder = divmod(before, micro * ranks)
    if not remainder:
        fix = f"set trainer.gradient_accumulation_steps to {steps}"
    elif before % ranks == 0:
        fix = f"set trainer.per_device_train_batch_size to a divisor of {before // ranks}"
    else:
        fix = f"use a number of ranks that divides {before}"
    raise ConfigError(
        f"{checkpoint}: a step had {before} rows, with these settings it has {now} ({micro} rows x "
        f"{args.gradient_accumulation_steps} micro-batches x {ranks} ranks); {fix}"
    )


def _mean(entries: list[Sums]) -> Sums:
    """The entry for each rank if their number has changed: transformers logs the mean over the ranks."""
    return {name: sum(entry[name] for entry in entries) / len(entries) for name in entries[0]}
