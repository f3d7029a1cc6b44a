"""The iterations of the stage `ppo`: metrics, checkpoints, early stopping, interruption and resumption."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from ...artifact import write_json
from ...checkpoints.sealed import Checkpoints
from ...console import say, track
from ...errors import Interrupted
from ...jsonl import read_rows
from ...processes import is_main_process
from ...training.interruption import interruptible
from ...training.tracking import Tracker
from . import rehearsal
from .early_warning import EarlyWarning
from .metrics import Metrics
from .out_of_memory import explained
from .selection import Selection
from .trainer import PpoTrainer

METRICS = "metrics.jsonl"
FIRST_AND_LAST = "first_and_last.json"  # in a checkpoint: metrics of the first and of the last iteration


class Trained(NamedTuple):
    """What `train` returns.

    Attributes:
        first, last: metrics of the first and of the last iteration, with its number `step`.
        warned_at: iteration of the early warning; None: no warning.
    """

    first: dict[str, Any]
    last: dict[str, Any]
    warned_at: int | None


def train(
    trainer: PpoTrainer,
    checkpoints: Checkpoints,
    checkpoint: Path | None,
    *,
    selection: Selection,
    tracker: Tracker,
    rows: Path,
) -> Trained:
    """Runs all iterations, or those after `checkpoint`, until the selection stops them.

    `rows`: the file of the logged metrics. Raises Interrupted after a signal, when a checkpoint is saved.
    """
    total, save_every = trainer.settings.iterations, trainer.settings.save_iterations
    done, first_and_last = 0, list[Metrics]()
    if checkpoint is not None:
        done = checkpoints.step(checkpoint)
        trainer.load(checkpoint)
        selection.load(checkpoint)
        first_and_last = json.loads((checkpoint / FIRST_AND_LAST).read_text(encoding="utf-8"))
        say(f"PPO: resuming after iteration {done}")
    else:
        selection.start()
    tracker.rewind(done or -1)  # a run that starts again logs the start model's evaluation again
    early_warning = EarlyWarning(read_rows(rows) if is_main_process() else ())

    def save(folder: Path) -> None:
        trainer.save(folder)
        selection.save(folder)
        if is_main_process():
            write_json(folder / FIRST_AND_LAST, first_and_last)

    finished = done == total or selection.stops
    if rehearsal.is_due() and not finished:
        rehearsal.rehearse(trainer)
    if not done and (evaluation := selection.after(0)):
        tracker.log(evaluation, 0)
    iterations = () if finished else trainer.iterations(done)
    with interruptible() as interrupted, explained(trainer.settings, "PPO"):
        for metrics in track(iterations, "PPO", total, unit="iterations", done=done):
            done += 1
            metrics |= selection.after(done)
            tracker.log(metrics, done)
            early_warning.check(metrics, done)
            first_and_last = [*first_and_last[:1], {"step": done, **metrics}]
            finished = done == total or selection.stops
            stop = interrupted() and not finished
            saved = False
            if stop or finished or selection.improved(done) or done % save_every == 0:
                saved = checkpoints.save(done, save)
            if stop:
                raise Interrupted(
                    f"PPO: interrupted after iteration {done}; run the same command to resume"
                    + ("" if saved else ", from an earlier one: this one was not saved")
                )
            if finished:
                break
    if done < total:
        say(f"PPO: stopped early after iteration {done}: {selection.why}")
    return Trained(first_and_last[0], first_and_last[-1], early_warning.iteration)
