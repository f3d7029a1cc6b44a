"""The callbacks that the Trainer-based stages share: progress, numbers to the tracker, an early end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ..console import track
from .health import MonitorOptions, peak_memory, utilization
from .tracking import Tracker

# what `Trainer` and trl report -> the name that the tracker gets; the rest (FLOPs, run times) stays out
NAMES = {
    "loss": "loss",
    "learning_rate": "learning_rate",
    "grad_norm": "grad_norm",
    "epoch": "epoch",
    "entropy": "entropy",
    "mean_token_accuracy": "token_accuracy",
}


class Progress(TrainerCallback):
    """Draws one bar over the optimizer steps and hands loss, learning rate, gradient norm and rate on.

    Args:
        tracker: receives a row at every logging step: with `<unit>` trained so far and `<unit>_per_second`
            since the last one.
        description: the bar's label.
        items_per_epoch: what one pass over the data trains on, counted in `unit`.
        unit: "tokens" or "pairs".
        watch: whether the row says what the device makes of it.
    """

    def __init__(
        self, tracker: Tracker, description: str, items_per_epoch: float, *, unit: str, watch: MonitorOptions
    ) -> None:
        self.tracker, self.description, self.watch = tracker, description, watch
        self.items_per_epoch, self.unit = items_per_epoch, unit
        self._bar: Iterator[int] = iter(())
        self._since = (0.0, 0.0)  # epoch and time of the last row

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        steps = range(state.global_step, state.max_steps)
        self._bar = track(steps, self.description, state.max_steps, unit="steps", done=state.global_step)
        self._since = (state.epoch or 0.0, time.monotonic())

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        next(self._bar, None)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        row = {NAMES[key]: float(value) for key, value in (logs or {}).items() if key in NAMES}
        if "loss" not in row:  # the summary at the end of training
            return
        epoch, then = self._since
        self._since = (state.epoch or 0.0, time.monotonic())
        if self._since[1] > then:
            per_second = (self._since[0] - epoch) * self.items_per_epoch / (self._since[1] - then)
            row |= {f"{self.unit}_per_second": per_second, **utilization(self.watch, per_second)}
        row |= {self.unit: self._since[0] * self.items_per_epoch, "peak_memory_gb": peak_memory()}
        self.tracker.log(row, state.global_step)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        next(self._bar, None)  # the bar sees its last step end
        self._bar = iter(())


class StopWhenAsked(TrainerCallback):
    """Ends a Trainer's run after the step under way, saved, when a signal came.

    Args:
        asked: see `interruption.interruptible`.

    Attributes:
        stopped: whether steps are left to do.
    """

    def __init__(self, asked: Callable[[], bool]) -> None:
        self._asked = asked
        self.stopped = False

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        if self._asked():
            self.stopped = state.global_step < state.max_steps
            control.should_save = control.should_training_stop = True
