"""Rollback to the newest checkpoint when the loss spikes or becomes NaN or infinite."""

from __future__ import annotations

import json
import math
import statistics
from collections import deque
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ..artifact import write_json
from ..console import say
from ..distributed.group import all_reduce_sum, barrier, once
from ..errors import LlamitaError, RolledBack
from ..processes import world_size
from .kept_places import Span

WINDOW, MIN_LOSSES = 100, 20  # largest and smallest number of earlier losses that a loss is compared with
MAX_ROLLBACKS = 3  # a run that diverges once more needs other settings
LOSSES = "losses.json"  # in a checkpoint: the losses in the window
SKIPPED = "skipped.json"  # beside the checkpoints: [{"after_step", "steps", "loss", "median"}]


class _PendingScalar:
    """A scalar that a GPU may still be computing; it is copied to the CPU without blocking."""

    def __init__(self, scalar: torch.Tensor) -> None:
        self._event = torch.cuda.Event() if scalar.is_cuda else None
        self._copy = scalar
        if self._event is not None:
            self._copy = torch.empty_like(scalar, device="cpu", pin_memory=True)
            self._copy.copy_(scalar, non_blocking=True)
            self._event.record()

    def wait(self) -> torch.Tensor:
        """The scalar on the CPU, once it is computed."""
        if self._event is not None:
            self._event.synchronize()
        return self._copy


class LossSpikeCallback(TrainerCallback):
    """Stops a run whose loss spikes or is NaN or infinite; it resumes without the batches since a checkpoint.

    A step's loss is checked after the next step, so that the GPU does not have to wait for the check.

    Args:
        trainer: the `OrderedTrainer` that this callback belongs to.
        checkpoint: the checkpoint to resume from; None: training starts from the beginning.

    Raises:
        RolledBack: the loss diverged; `SKIPPED` stores how many steps' batches the resumed run skips.
        LlamitaError: the run was already rolled back `MAX_ROLLBACKS` times.
    """

    def __init__(self, trainer: Any, checkpoint: Path | None) -> None:
        self._trainer, self._checkpoint = trainer, checkpoint
        self._last: _PendingScalar | None = None  # loss of the previous step
        self._sum = torch.zeros(())  # sum of the losses since the last logging step
        self.losses: deque[float] = deque(maxlen=WINDOW)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self._sum = self._trainer.loss_since_logged.clone()
        if self._checkpoint is not None:
            self.losses.extend(json.loads((self._checkpoint / LOSSES).read_text(encoding="utf-8")))

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self.check(state.global_step - 1)
        total = self._trainer.loss_since_logged.detach().clone()
        self._last, self._sum = _PendingScalar(total - self._sum), total

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._sum = torch.zeros_like(self._sum)  # `Trainer` resets its sum, too

    def check(self, step: int) -> None:
        """Checks the loss of `step`, the last step that was not checked."""
        if self._last is None:
            return
        loss = float(all_reduce_sum(self._last.wait())) / world_size()
        self._last = None
        median = statistics.median(self.losses) if len(self.losses) >= MIN_LOSSES else math.inf
        if math.isfinite(loss) and loss <= (self._trainer.monitor.loss_spike or math.inf) * median:
            self.losses.append(loss)
            return
        self._roll_back(step, loss, median)

    def _roll_back(self, step: int, loss: float, median: float) -> None:
        folder = self._trainer.checkpoints.folder
        checkpoint = self._trainer.checkpoints.newest()
        last_good = 0 if checkpoint is None else self._trainer.checkpoints.step(checkpoint)
        place = "the start" if checkpoint is None else str(checkpoint)
        value = (
            f"{loss:.4g}; the median before was {median:.4g}" if math.isfinite(loss) else "NaN or infinite"
        )
        problem = f"{self._trainer.description}: the loss of step {step:,} is {value}"
        before = read_skipped(folder)
        if len(before) == MAX_ROLLBACKS:
            raise LlamitaError(
                f"{problem}. The run was already rolled back {MAX_ROLLBACKS} times; try a lower "
                f"trainer.learning_rate. Its last good state is {place}"
            )
        entry = {"after_step": last_good, "steps": step - last_good, "loss": loss, "median": median}
        once("rolling back", lambda: _write_skipped(folder, [*before, entry]))
        barrier()  # rank 0 ends now and serves the store, which the other ranks poll
        raise RolledBack(
            f"{problem}; rolling back to {place} and skipping the batches of {step - last_good:,} steps"
        )


def read_skipped(folder: Path) -> list[dict[str, Any]]:
    """The entries of `SKIPPED`, as rank 0 reads them; an empty list if it does not exist."""
    return once("looking for skipped steps", lambda: _read(folder / SKIPPED))


def _read(path: Path) -> list[dict[str, Any]]:
    try:
        entries: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []
    return entries


def _write_skipped(folder: Path, entries: list[dict[str, Any]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / SKIPPED, entries)


def skipped_steps(folder: Path) -> list[Span]:
    """The steps that rollbacks skip: for each the first step and their number, the oldest rollback first."""
    entries = read_skipped(folder)
    for entry in entries:
        say(f"skipping the batches of {entry['steps']:,} steps after step {entry['after_step']:,}")
    return [(entry["after_step"], entry["steps"]) for entry in entries]
