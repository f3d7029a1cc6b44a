"""Base class of our `Trainer`, `SFTTrainer` and `RewardTrainer`: order of the rows, and checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..artifact import RESUME, write_json
from ..checkpoints.sealed import Checkpoints
from ..deepspeed_file import zero_stage
from ..errors import ConfigError, LlamitaError
from ..processes import is_main_process
from .monitoring import LOSS_ONLY, MonitorOptions
from .order import Order, OrderedLoader, RankBatches, SeededOrder
from .resumption import SUMS, Resumption
from .spikes import LOSSES, LossSpikeCallback, skipped_steps
from .trainer_internals import TrainerInternals

CHECKPOINTS_KEPT = 2  # default of `save_total_limit`


class OrderedTrainer(TrainerInternals):
    """Mixed into a Trainer class: rows in our seeded order, our checkpoints, no FLOP counting.

    For the same global batch size a step has the same rows on any number of ranks and micro-batches. Only in
    an incomplete last step of an epoch several ranks repeat rows, so that all have the same number.

    Args:
        order: order of the rows; by default they are shuffled with the seed.
        row_lengths: tokens of each row; if given, rows of similar lengths share a micro-batch.
        description: name of the run in messages and in the progress bar.
        monitor: what to monitor besides the loss.
        options: arguments of the Trainer class.

    Attributes:
        checkpoint: the newest intact one, from which training resumes; None: it starts from the beginning.
        saved: step of the newest checkpoint that this run saved; 0: none.

    Raises:
        LlamitaError: a ZeRO file is set but DeepSpeed is not active.
    """

    def __init__(
        self,
        *,
        order: Order | None = None,
        row_lengths: Sequence[int] | None = None,
        description: str = "training",
        monitor: MonitorOptions = LOSS_ONLY,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self._check_deepspeed()
        args = self.args
        self.order = SeededOrder(len(self.train_dataset), args.seed) if order is None else order
        self.description, self.monitor = description, monitor
        self._batches = RankBatches(
            self.order,
            args.per_device_train_batch_size,
            args.process_index,
            ranks=args.world_size,
            lengths=row_lengths,
            accumulation=args.gradient_accumulation_steps,
        )
        self.checkpoints = Checkpoints(
            Path(args.output_dir) / RESUME,
            args.save_total_limit or CHECKPOINTS_KEPT,
            monitor.keep_every,
            zero_stage=zero_stage(args.deepspeed),
        )
        self.checkpoint, self.saved = self.checkpoints.newest(), 0
        self.resumption = Resumption(self, self.checkpoint)
        self.add_callback(self.resumption)
        self.spikes = LossSpikeCallback(self, self.checkpoint)
        self.add_callback(self.spikes)

    def _check_deepspeed(self) -> None:
        file = self.args.deepspeed
        if file and not self.is_deepspeed_enabled:
            raise LlamitaError(f"deepspeed: {file} is set, but accelerate did not enable DeepSpeed")

    def get_train_dataloader(self) -> OrderedLoader:
        """Loads this rank's batches; transformers' own loader loses the epoch when several ranks resume."""
        args = self.args
        return OrderedLoader(
            self.train_dataset,
            batch_sampler=self._batches,
            collate_fn=self.data_collator,
            num_workers=args.dataloader_num_workers,
            pin_memory=args.dataloader_pin_memory,
            persistent_workers=args.dataloader_persistent_workers,
            prefetch_factor=args.dataloader_prefetch_factor,
        )

    def start_at(self, epoch: int, batches: int) -> None:
        self._batches.resume(epoch, batches, skipped_steps(self.checkpoints.folder))

    def create_optimizer(self, model: Any = None) -> Any:
        with _trainer_section_errors():
            return super().create_optimizer(model)

    def create_scheduler(self, *args: Any, **kwargs: Any) -> Any:
        with _trainer_section_errors():
            return super().create_scheduler(*args, **kwargs)

    def floating_point_ops(self, inputs: Any) -> int:
        return 0

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Writes no model card: trl's lists its tags in a different order in each process.

        As part of the artifact it would make two identical runs differ.
        """

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Under ZeRO-3 writes no whole model into a checkpoint, which has its shards."""
        if zero_stage(self.args.deepspeed) != 3:
            super().save_model(output_dir, _internal_call)

    def save_checkpoint(self, write: Callable[[Path], None]) -> None:
        """Saves a checkpoint through `Checkpoints`, which also deletes old ones.

        One is saved after the last step, so that a failure in what follows does not cost the training.
        Nothing is saved after a loss spike: the checkpoint would contain its update.
        """
        self.spikes.check(self.state.global_step)
        sums = self.resumption.sums()

        def write_all(folder: Path) -> None:
            write(folder)
            if is_main_process():
                write_json(folder / SUMS, sums)
                write_json(folder / LOSSES, list(self.spikes.losses))

        if self.checkpoints.save(self.state.global_step, write_all):
            self.saved = self.state.global_step


@contextmanager
def _trainer_section_errors() -> Iterator[None]:
    """Reports errors of torch and transformers about optimizer and schedule as those of `trainer`."""
    try:
        yield
    except (ImportError, TypeError, ValueError) as error:
        raise ConfigError(f"trainer: {error}") from error
