"""What a Trainer needs to resume exactly, and transformers' own checkpoints leave out."""

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

SUMS = "sums.json"  # in a checkpoint: one row a rank
Sums = dict[str, float]


class Resumption(TrainerCallback):
    """Restores the sums that a checkpoint was saved with.

    Args:
        trainer: the one that it is a callback of.
        checkpoint: to go on from, or None for the start.
    """

    def __init__(self, trainer: TrainerInternals, checkpoint: Path | None) -> None:
        self._trainer, self._checkpoint = trainer, checkpoint
        self._begun = time.monotonic()

    def seconds(self) -> float:
        """Of training, those before the checkpoint included."""
        return time.monotonic() - self._begun

    def sums(self) -> list[Sums]:
        """What is to be written as `SUMS`, on every rank."""
        mine: Sums = self._trainer.loss_sums()
        mine |= {"seconds": self.seconds(), "rows_per_step": rows_per_step(self._trainer.args)}
        return gather_rows([mine])

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self._begun = time.monotonic()
        if self._checkpoint is None:
            return
        rows = _read(self._checkpoint)
        same = len(rows) == args.world_size
        mine = rows[args.process_index] if same else _mean(rows)
        self._trainer.restore_loss_sums(mine)
        self._begun -= mine["seconds"]


def _read(checkpoint: Path) -> list[Sums]:
    rows: list[Sums] = json.loads((checkpoint / SUMS).read_text(encoding="utf-8"))
    return rows


def check_rows_per_step(checkpoint: Path, args: TrainingArguments) -> None:
    """The position in the data and the learning rate are counted in steps: they must stay what they are.

    Raises ConfigError where a step would take more or fewer rows than before.
    """
    before, now = int(_read(checkpoint)[0]["rows_per_step"]), rows_per_step(args)
    if before == now:
        return
    micro, ranks = args.per_device_train_batch_size, args.world_size
    steps, rest = divmod(before, micro * ranks)
    right = (
        f"set trainer.gradient_accumulation_steps to {steps}"
        if not rest
        else f"choose trainer.per_device_train_batch_size so that it divides {before} / {ranks}"
    )
    raise ConfigError(
        f"{checkpoint}: its steps had {before} rows, now they would have {now} ({micro} rows x "
        f"{args.gradient_accumulation_steps} micro-batches x {ranks} ranks); {right}"
    )


def _mean(rows: list[Sums]) -> Sums:
    """What each of another number of ranks goes on with: transformers logs the mean over the ranks."""
    return {name: sum(row[name] for row in rows) / len(rows) for name in rows[0]}
