"""A Trainer goes on as if nothing had happened: what transformers' own checkpoints leave out."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ..distributed.group import gather_rows
from ..errors import ConfigError
from .arguments import rows_per_step

SUMS = "sums.json"  # in a checkpoint: one row a rank
Sums = dict[str, float]


class Resumption(TrainerCallback):
    """Restores the sums that a checkpoint was saved with, and ends the run early, saved, when asked to.

    Args:
        trainer: the one that it is a callback of.
        checkpoint: to go on from, or None for the start.
        asked: see `interruption.interruptible`.

    Raises:
        ConfigError: a step would take more or fewer rows than before.
    """

    def __init__(self, trainer: Trainer, checkpoint: Path | None, asked: Callable[[], bool]) -> None:
        self._trainer, self._checkpoint, self._asked = trainer, checkpoint, asked
        self._begun = time.monotonic()
        self.stopped = False
        if checkpoint is not None:
            _check_rows(checkpoint, trainer.args)

    def seconds(self) -> float:
        """Of training, those before the checkpoint included."""
        return time.monotonic() - self._begun

    def sums(self) -> list[Sums]:
        """What is to be written as `SUMS`, on every rank."""
        trainer: Any = self._trainer
        mine: Sums = {
            "loss_since_logged": float(trainer._tr_loss),
            "loss_until_logged": trainer._total_loss_scalar,
            "step_logged": trainer._globalstep_last_logged,
            "seconds": self.seconds(),
            "rows_per_step": rows_per_step(trainer.args),
        }
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
        trainer: Any = self._trainer
        trainer._tr_loss = torch.tensor(mine["loss_since_logged"], device=args.device)
        trainer._total_loss_scalar = mine["loss_until_logged"]
        trainer._globalstep_last_logged = int(mine["step_logged"])
        trainer._initial_global_step = 0  # the mean loss is that of the whole run
        self._begun -= mine["seconds"]

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        if self._asked():
            self.stopped = state.global_step < state.max_steps
            control.should_save = control.should_training_stop = True


def _read(checkpoint: Path) -> list[Sums]:
    rows: list[Sums] = json.loads((checkpoint / SUMS).read_text(encoding="utf-8"))
    return rows


def _check_rows(checkpoint: Path, args: TrainingArguments) -> None:
    """The position in the data and the learning rate are counted in steps: they must stay what they are."""
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
