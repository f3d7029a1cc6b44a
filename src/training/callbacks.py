"""Callbacks that the Trainer-based stages share: progress bar, logging to the tracker, stop on a signal."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ..console import track
from ..processes import advanced, enter_phase
from .monitoring import MonitorOptions, peak_memory, utilization
from .tracking import Tracker

# name in the logs of `Trainer` and trl -> name in metrics.jsonl and wandb (docs/metrics.md); others are
# dropped
NAMES = {
    "loss": "train/loss",
    "learning_rate": "train/learning_rate",
    "grad_norm": "train/grad_norm",
    "epoch": "train/epoch",
    "entropy": "train/entropy",
    "mean_token_accuracy": "train/token_accuracy",
}


class Progress(TrainerCallback):
    """Draws one bar over the optimizer steps and logs loss, learning rate, gradient norm and throughput.

    Args:
        tracker: gets a row at every logging step; `train/<unit>` counts from the start of training,
            `train/<unit>_per_second` is measured since the row before.
        description: label of the bar.
        items_per_epoch: number of tokens or pairs in one pass over the data.
        unit: "tokens" or "pairs".
        monitor: with `flops_per_item`, rows also have `train/tflops_per_second` and `train/mfu`.
    """

    def __init__(
        self,
        tracker: Tracker,
        description: str,
        items_per_epoch: float,
        *,
        unit: str,
        monitor: MonitorOptions,
    ) -> None:
        self.tracker, self.description, self.monitor = tracker, description, monitor
        self.items_per_epoch, self.unit = items_per_epoch, unit
        self._bar: Iterator[int] = iter(())
        self._last_row = (0.0, 0.0)  # its epoch and time

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        steps = range(state.global_step, state.max_steps)
        self._bar = track(steps, self.description, state.max_steps, unit="steps", done=state.global_step)
        self._last_row = (state.epoch or 0.0, time.monotonic())

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        enter_phase("training", state.global_step + 1)
        next(self._bar, None)

    def on_substep_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        advanced()

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        row = {NAMES[key]: float(value) for key, value in (logs or {}).items() if key in NAMES}
        if "train/loss" not in row:  # the summary at the end of training
            return
        last_epoch, last_time = self._last_row
        epoch, now = self._last_row = (state.epoch or 0.0, time.monotonic())
        measured = {self.unit: epoch * self.items_per_epoch, "peak_memory_gb": peak_memory()}
        if now > last_time:
            per_second = (epoch - last_epoch) * self.items_per_epoch / (now - last_time)
            measured |= {f"{self.unit}_per_second": per_second, **utilization(self.monitor, per_second)}
        row |= {f"train/{name}": value for name, value in measured.items()}
        self.tracker.log(row, state.global_step)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        next(self._bar, None)  # counts the last step as finished
        self._bar = iter(())


class StopOnSignal(TrainerCallback):
    """After a signal, saves a checkpoint at the end of the current step and stops training.

    Args:
        stop_requested: what `interruption.interruptible` yields.

    Attributes:
        stopped: whether training stopped before its last step.
    """

    def __init__(self, stop_requested: Callable[[], bool]) -> None:
        self._stop_requested = stop_requested
        self.stopped = False

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        if self._stop_requested():
            self.stopped = state.global_step < state.max_steps
            control.should_save = control.should_training_stop = True
