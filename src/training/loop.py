"""What `Trainer`, `SFTTrainer` and `RewardTrainer` share here: rows, checkpoints, the run, saved weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from transformers import PrinterCallback, Trainer
from transformers.integrations.deepspeed import unset_hf_deepspeed_config

from ..artifact import RESUME, write_json
from ..checkpoints.sealed import Checkpoints
from ..checkpoints.universal import fit_to_ranks
from ..console import say
from ..distributed import group
from ..distributed.deepspeed_file import zero_stage
from ..errors import ConfigError, Interrupted, LlamitaError
from ..model.lora import ADAPTER, is_adapted, merged, save_adapter
from ..model.saving import quiet, save_model
from ..processes import is_main_process
from .callbacks import Progress
from .health import LOSSES, Spikes, Watch, peak_memory, skipped_steps, utilization
from .interruption import interruptible
from .order import Order, OrderedLoader, RankBatches, SeededOrder
from .resumption import SUMS, Resumption
from .tracking import Tracker

NOTHING_MORE = Watch()
KEPT = 2  # checkpoints, unless `save_total_limit` says otherwise


class OrderedTrainer(Trainer):
    """Mixed into a Trainer class: rows in our seeded order, our checkpoints, no time spent on counting FLOPs.

    The rows of a step are the same for any number of ranks and micro-batches that make up its batch. Only
    where they don't fill the last step of an epoch, several ranks repeat rows to have equally many.
    """

    order: Order | None = None  # of the rows; shuffled if not given
    row_lengths: list[int] | None = None  # tokens of each row, where micro-batches are sorted by them
    checkpoints: Checkpoints
    resumption: Resumption
    spikes: Spikes
    _writing_to: Path | None = None

    def get_train_dataloader(self) -> OrderedLoader:
        """Batches of this rank alone; transformers' own would forget the epoch where several ranks resume."""
        args = self.args
        if self.order is None:
            self.order = SeededOrder(len(self.train_dataset), args.seed)
        self._batches = RankBatches(
            self.order,
            args.per_device_train_batch_size,
            args.process_index,
            args.world_size,
            lengths=self.row_lengths,
            accumulation=args.gradient_accumulation_steps,
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
        with quiet():  # it warns of what the next line sets right
            epoch, batches = super()._init_training_state(*args)
        self.state.compute_steps(self.args, self.state.max_steps)  # a checkpoint brings its own intervals
        step, in_epoch = self.state.global_step, batches // self.args.gradient_accumulation_steps
        left_out = skipped_steps(self.checkpoints.folder, step - in_epoch, step)
        self._batches.resume(epoch, batches, left_out * self.args.gradient_accumulation_steps)
        return epoch, batches

    def create_optimizer(self, model: Any = None) -> Any:
        with _named_by_section():
            return super().create_optimizer(model)

    def create_scheduler(self, *args: Any, **kwargs: Any) -> Any:
        with _named_by_section():
            return super().create_scheduler(*args, **kwargs)

    def floating_point_ops(self, inputs: Any) -> int:
        return 0

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """transformers' own, but written aside and sealed; which ones stay is `Checkpoints`' to decide.

        None after the last step: going on from there, transformers would take one more. None after a step
        that went wrong: those before it are the good ones.
        """
        if self.state.global_step == self.state.max_steps:
            return
        self.spikes.check(self.state.global_step)
        sums = self.resumption.sums()

        def write(folder: Path) -> None:
            self._writing_to = folder.parent
            try:
                with quiet():
                    super(OrderedTrainer, self)._save_checkpoint(model, trial)
            finally:
                self._writing_to = None
            if is_main_process():
                write_json(folder / SUMS, sums)
                write_json(folder / LOSSES, list(self.spikes.losses))

        self.checkpoints.save(self.state.global_step, write)

    def _get_output_dir(self, trial: Any) -> str:
        return str(self._writing_to or self.args.output_dir)


@contextmanager
def _named_by_section() -> Iterator[None]:
    """What torch and transformers find wrong with optimizer and schedule stands in `trainer`."""
    try:
        yield
    except (ImportError, TypeError, ValueError) as error:
        raise ConfigError(f"trainer: {error}") from error


def run_trainer(
    trainer: OrderedTrainer,
    tracker: Tracker,
    description: str,
    items_per_row: float,
    unit: str,
    watch: Watch = NOTHING_MORE,
) -> dict[str, Any]:
    """Trains to the end with progress and tracking, and says how it went.

    A run that was killed before goes on from its newest whole checkpoint, also with other ranks or under
    another ZeRO stage. One that is asked to stop saves itself after the step under way.

    Returns `steps`, `train_loss` (mean over the run), `final_loss` (mean since the last but one logging
    step), `train_seconds`, `<unit>_per_second`, what the device made of it and `peak_memory_gb`; a row of
    the data holds `items_per_row` of `unit`.

    Raises:
        LlamitaError: DeepSpeed was asked for and is not at work, or steps went wrong again and again.
        ConfigError: an unfinished run can't go on like this, or an adapter is to be trained under ZeRO-3.
        RolledBack: a step went wrong; called again, it goes on from before, without the rows since.
        Interrupted: it was asked to stop.
    """
    args = trainer.args
    if args.deepspeed and not trainer.is_deepspeed_enabled:
        raise LlamitaError(f"deepspeed: {args.deepspeed} was asked for, but accelerate left it out")
    if is_adapted(trainer.model) and zero_stage(args.deepspeed) == 3:
        raise ConfigError(
            "lora: ZeRO-3 spreads the frozen weights, which are merged at the end; expected 0 to 2"
        )
    folder = Path(args.output_dir) / RESUME
    trainer.checkpoints = Checkpoints(
        folder, args.save_total_limit or KEPT, watch.keep_every, zero_stage(args.deepspeed)
    )
    checkpoint = trainer.checkpoints.newest()
    step = 0
    if checkpoint is not None:
        step = trainer.checkpoints.step(checkpoint)
        say(f"{description}: going on after step {step:,}")
        fit_to_ranks(checkpoint, trainer)
    tracker.rewind(step)
    rows = len(trainer.train_dataset if trainer.order is None else trainer.order)
    items_per_epoch = rows * items_per_row
    trainer.add_callback(Progress(tracker, description, items_per_epoch, unit, watch))
    trainer.remove_callback(PrinterCallback)
    trainer.model.config.use_cache = False  # packed rows would see each other through a cache
    with interruptible() as asked:
        trainer.resumption = Resumption(trainer, checkpoint, asked)
        trainer.add_callback(trainer.resumption)
        trainer.spikes = Spikes(trainer, checkpoint, watch, description)
        trainer.add_callback(trainer.spikes)
        result = trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
        trainer.spikes.check(result.global_step)
    seconds = trainer.resumption.seconds()
    trainer.model.config.use_cache = True  # what is saved is for generation
    if trainer.resumption.stopped:
        raise Interrupted(f"{description}: stopped after step {result.global_step:,}; run it again to go on")
    per_second = trainer.state.epoch * items_per_epoch / seconds
    return {
        "steps": result.global_step,
        "train_loss": result.training_loss,
        "final_loss": _last_loss(trainer.state.log_history),
        "train_seconds": seconds,
        f"{unit}_per_second": per_second,
        **utilization(watch, per_second),
        "peak_memory_gb": peak_memory(),
    }


def _last_loss(history: list[dict[str, Any]]) -> float | None:
    return next((float(row["loss"]) for row in reversed(history) if "loss" in row), None)


def save_trained(trainer: Trainer, tokenizer: Any, folder: Path) -> None:
    """Writes the trained model as a plain Hugging Face folder; every rank calls it, at any ZeRO stage.

    An adapter is merged into it, and stands beside it.
    """
    state = None
    if trainer.is_deepspeed_enabled:  # gathers what ZeRO-3 has spread over the ranks
        state = trainer.accelerator.get_state_dict(trainer.deepspeed)
    if is_main_process():
        model = trainer.accelerator.unwrap_model(trainer.model)
        if is_adapted(model):
            save_adapter(model, folder.with_name(ADAPTER))
            model, state = merged(model), None
        save_model(model, tokenizer, folder, state_dict=state)
    unset_hf_deepspeed_config()  # otherwise a rank that loads a model alone would wait for the others
    group.barrier()
