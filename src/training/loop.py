"""What `Trainer`, `SFTTrainer` and `RewardTrainer` share here: rows, checkpoints, the run, saved weights."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from transformers import PrinterCallback, Trainer
from transformers.integrations.deepspeed import unset_hf_deepspeed_config

from ..artifact import RESUME, write_json
from ..console import say
from ..errors import Interrupted, LlamitaError
from ..model.checkpoint import quiet, save_model
from . import distributed
from .arguments import rows_per_step
from .callbacks import Progress
from .checkpoints import Checkpoints
from .interruption import interruptible
from .order import Order, OrderedLoader, RankBatches, SeededOrder
from .resumption import SUMS, Resumption
from .tracking import Tracker

KEPT = 2  # checkpoints, unless `save_total_limit` says otherwise


class OrderedTrainer(Trainer):
    """Mixed into a Trainer class: rows in our seeded order, our checkpoints, no time spent on counting FLOPs.

    The rows of a step are the same for any number of ranks and micro-batches that make up its batch. Only
    where they don't fill the last step of an epoch, several ranks repeat rows to have equally many.
    """

    order: Order | None = None  # of the rows; shuffled if not given
    row_lengths: list[int] | None = None  # tokens of each row, where rows of like length shall share a batch
    checkpoints: Checkpoints
    resumption: Resumption
    _writing_to: Path | None = None

    def get_train_dataloader(self) -> OrderedLoader:
        """Batches of this rank alone; transformers' own would forget the epoch where several ranks resume."""
        args = self.args
        if self.order is None:
            self.order = SeededOrder(
                len(self.train_dataset), args.seed, self.row_lengths, rows_per_step(args)
            )
        self._batches = RankBatches(
            self.order, args.per_device_train_batch_size, args.process_index, args.world_size
        )
        return OrderedLoader(
            self.train_dataset,
            batch_sampler=self._batches,
            collate_fn=self.data_collator,
            num_workers=args.dataloader_num_workers,
            pin_memory=args.dataloader_pin_memory,
            persistent_workers=args.dataloader_persistent_workers,
            prefetch_factor=args.dataloader_prefetch_factor,
        )

    def _init_training_state(self, *args: Any) -> tuple[int, int]:
        epoch, batches = super()._init_training_state(*args)
        self._batches.resume(epoch, batches)
        return epoch, batches

    def floating_point_ops(self, inputs: Any) -> int:
        return 0

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """transformers' own, but written aside and sealed; which ones stay is `Checkpoints`' to decide.

        None after the last step: going on from there, transformers would take one more. None where the loss
        is no longer a number: those before it are the good ones.
        """
        if self.state.global_step == self.state.max_steps:
            return
        sums = self.resumption.sums()
        if not all(math.isfinite(value) for row in sums for value in row.values()):
            return

        def write(folder: Path) -> None:
            self._writing_to = folder.parent
            try:
                with quiet():
                    super(OrderedTrainer, self)._save_checkpoint(model, trial)
            finally:
                self._writing_to = None
            if distributed.is_main():
                write_json(folder / SUMS, sums)

        self.checkpoints.save(self.state.global_step, write)

    def _get_output_dir(self, trial: Any) -> str:
        return str(self._writing_to or self.args.output_dir)


def run_trainer(
    trainer: OrderedTrainer, tracker: Tracker, description: str, items_per_row: float, unit: str
) -> dict[str, Any]:
    """Trains to the end with progress and tracking, and says how it went.

    A run that was killed before goes on from its newest whole checkpoint. One that is asked to stop saves
    itself after the step under way.

    Returns `steps`, `train_loss` (mean over the run), `final_loss` (mean since the last but one logging
    step), `train_seconds` and `<unit>_per_second`; a row of the data holds `items_per_row` of `unit`.
    Raises LlamitaError where DeepSpeed was asked for and is not at work, or where the loss is not finite;
    Interrupted where it was asked to stop.
    """
    args = trainer.args
    if args.deepspeed and not trainer.is_deepspeed_enabled:
        raise LlamitaError(f"deepspeed: {args.deepspeed} was asked for, but accelerate left it out")
    rows = len(trainer.train_dataset if trainer.order is None else trainer.order)
    items_per_epoch = rows * items_per_row
    trainer.checkpoints = Checkpoints(Path(args.output_dir) / RESUME, args.save_total_limit or KEPT)
    checkpoint = trainer.checkpoints.newest()
    step = 0
    if checkpoint is not None:
        step = trainer.checkpoints.step(checkpoint)
        say(f"{description}: going on after step {step:,}")
    tracker.rewind(step)
    trainer.add_callback(Progress(tracker, description, items_per_epoch, unit))
    trainer.remove_callback(PrinterCallback)
    trainer.model.config.use_cache = False  # packed rows would see each other through a cache
    with interruptible() as asked:
        trainer.resumption = Resumption(trainer, checkpoint, asked)
        trainer.add_callback(trainer.resumption)
        result = trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    seconds = trainer.resumption.seconds()
    trainer.model.config.use_cache = True  # what is saved is for generation
    if trainer.resumption.stopped:
        raise Interrupted(f"{description}: stopped after step {result.global_step:,}; run it again to go on")
    final_loss = _last_loss(trainer.state.log_history)
    if final_loss is not None and not math.isfinite(final_loss):
        raise LlamitaError(
            f"{description}: the loss is not a number after {result.global_step} steps; "
            "a lower trainer.learning_rate usually helps"
        )
    return {
        "steps": result.global_step,
        "train_loss": result.training_loss,
        "final_loss": final_loss,
        "train_seconds": seconds,
        f"{unit}_per_second": trainer.state.epoch * items_per_epoch / seconds,
    }


def _last_loss(history: list[dict[str, Any]]) -> float | None:
    return next((float(row["loss"]) for row in reversed(history) if "loss" in row), None)


def save_trained(trainer: Trainer, tokenizer: Any, folder: Path) -> None:
    """Writes the trained model as a plain Hugging Face folder; every rank calls it, at any ZeRO stage."""
    state = None
    if trainer.is_deepspeed_enabled:  # gathers what ZeRO-3 has spread over the ranks
        state = trainer.accelerator.get_state_dict(trainer.deepspeed)
    if distributed.is_main():
        save_model(trainer.accelerator.unwrap_model(trainer.model), tokenizer, folder, state)
    unset_hf_deepspeed_config()  # otherwise a rank that loads a model alone would wait for the others
    distributed.barrier()
