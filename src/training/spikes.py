"""Steps that went wrong: a loss that spikes or is no number sends a run back to its newest checkpoint."""

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
from ..distributed.group import all_reduce_sum, barrier
from ..errors import LlamitaError, RolledBack
from ..processes import is_main_process, world_size

WINDOW, ENOUGH = 100, 20  # steps that a loss is compared with, at most and at least
MOST = 3  # times that a run goes back; whoever spikes once more needs other settings
LOSSES = "losses.json"  # in a checkpoint: those that the next ones are compared with
SKIPPED = "skipped.json"  # beside the checkpoints: [{"after_step", "steps", "loss", "median"}]


class _PendingScalar:
    """A number that a GPU is still to compute, copied to the CPU as soon as it has."""

    def __init__(self, number: torch.Tensor) -> None:
        self._event = torch.cuda.Event() if number.is_cuda else None
        self._copy = number
        if self._event is not None:
            self._copy = torch.empty_like(number, device="cpu", pin_memory=True)
            self._copy.copy_(number, non_blocking=True)
            self._event.record()

    def arrived(self) -> torch.Tensor:
        if self._event is not None:
            self._event.synchronize()
        return self._copy


class LossSpikeCallback(TrainerCallback):
    """Ends a run whose loss spikes or is no number, to go back to its newest checkpoint past the bad rows.

    The loss of a step is looked at after the next one, so that no GPU waits to be asked.

    Args:
        trainer: the `OrderedTrainer` that it is a callback of.
        checkpoint: to go on from, or None for the start.

    Raises:
        RolledBack: a step went wrong; how many rows are to be skipped stands in `SKIPPED`.
        LlamitaError: that has happened `MOST` times before.
    """

    def __init__(self, trainer: Any, checkpoint: Path | None) -> None:
        self._trainer, self._checkpoint = trainer, checkpoint
        self._last: _PendingScalar | None = None  # the loss of the step before
        self._sum = torch.zeros(())  # of the losses since the last logging step
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
        self._sum = torch.zeros_like(self._sum)  # `Trainer` begins its sum anew

    def check(self, step: int) -> None:
        """Looks at the loss of `step`, the last one that was not looked at."""
        if self._last is None:
            return
        loss = float(all_reduce_sum(self._last.arrived())) / world_size()
        self._last = None
        median = statistics.median(self.losses) if len(self.losses) >= ENOUGH else math.inf
        if math.isfinite(loss) and loss <= (self._trainer.monitor.loss_spike or math.inf) * median:
            self.losses.append(loss)
            return
        self._go_back(step, loss, median)

    def _go_back(self, step: int, loss: float, median: float) -> None:
        folder = self._trainer.checkpoints.folder
        checkpoint = self._trainer.checkpoints.newest()
        good = 0 if checkpoint is None else self._trainer.checkpoints.step(checkpoint)
        place = "the start" if checkpoint is None else str(checkpoint)
        what = "is not a number" if not math.isfinite(loss) else f"is {loss:.4g}, the median was {median:.4g}"
        told = f"{self._trainer.description}: the loss of step {step:,} {what}"
        before = read_skipped(folder)
        if len(before) == MOST:
            raise LlamitaError(
                f"{told}, after {MOST} times of going back; a lower trainer.learning_rate usually helps. "
                f"The last good state is {place}"
            )
        entry = {"after_step": good, "steps": step - good, "loss": loss, "median": median}
        if is_main_process():
            folder.mkdir(parents=True, exist_ok=True)
            write_json(folder / SKIPPED, [*before, entry])
        barrier()
        raise RolledBack(f"{told}; going back to {place}, without the rows of {step - good:,} steps")


def read_skipped(folder: Path) -> list[dict[str, Any]]:
    """The entries of `SKIPPED`, none where it is not there."""
    try:
        entries: list[dict[str, Any]] = json.loads((folder / SKIPPED).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []
    return entries


def skipped_steps(folder: Path, first: int, last: int) -> int:
    """Steps whose rows were passed over when going back to one of the steps `first` … `last`."""
    entries = read_skipped(folder)
    for entry in entries:
        say(f"the rows of {entry['steps']:,} steps after step {entry['after_step']:,} are left out")
    return sum(entry["steps"] for entry in entries if first <= entry["after_step"] <= last)
