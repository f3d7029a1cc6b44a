"""What `Trainer`, `SFTTrainer` and `RewardTrainer` share here: the order of the rows, and checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..artifact import RESUME, write_json
from ..checkpoints.sealed import Checkpoints
from ..deepspeed_file import zero_stage
from ..errors import ConfigError, LlamitaError
from ..model.lora import is_adapted
from ..processes import is_main_process
from .monitoring import LOSS_ONLY, MonitorOptions
from .order import Order, OrderedLoader, RankBatches, SeededOrder
from .resumption import SUMS, Resumption
from .spikes import LOSSES, LossSpikeCallback, skipped_steps
from .trainer_internals import TrainerInternals

KEPT = 2  # checkpoints, unless `save_total_limit` says otherwise


class OrderedTrainer(TrainerInternals):
    """Mixed into a Trainer class: rows in our seeded order, our checkpoints, no time spent on counting FLOPs.

    The rows of a step are the same for any number of ranks and micro-batches that make up its batch. Only
    where they don't fill the last step of an epoch, several ranks repeat rows to have equally many.

    Args:
        order: of the rows; shuffled if not given.
        row_lengths: tokens of each row, where micro-batches are sorted by them.
        description: of the run, for messages and the progress bar.
        monitor: what to monitor besides the loss.
        options: those of the Trainer class.

    Attributes:
        checkpoint: the newest whole one, from which training resumes; None: it starts from the beginning.

    Raises:
        LlamitaError: DeepSpeed was asked for and is not at work.
        ConfigError: an adapter is to be trained under ZeRO-3.
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
            args.save_total_limit or KEPT,
            monitor.keep_every,
            zero_stage=zero_stage(args.deepspeed),
        )
        self.checkpoint = self.checkpoints.newest()
        self.resumption = Resumption(self, self.checkpoint)
        self.add_callback(self.resumption)
        self.spikes = LossSpikeCallback(self, self.checkpoint)
        self.add_callback(self.spikes)

    def _check_deepspeed(self) -> None:
        file = self.args.deepspeed
        if file and not self.is_deepspeed_enabled:
            raise LlamitaError(f"deepspeed: {file} was asked for, but accelerate left it out")
        if is_adapted(self.model) and zero_stage(file) == 3:
            raise ConfigError(
                "lora: ZeRO-3 spreads the frozen weights, which are merged at the end; expected 0 to 2"
            )

    def get_train_dataloader(self) -> OrderedLoader:
        """Batches of this rank alone; transformers' own would forget the epoch where several ranks resume."""
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
        step, in_epoch = self.state.global_step, batches // self.args.gradient_accumulation_steps
        left_out = skipped_steps(self.checkpoints.folder, step - in_epoch, step)
        self._batches.resume(epoch, batches, left_out * self.args.gradient_accumulation_steps)

    def create_optimizer(self, model: Any = None) -> Any:
        with _named_by_section():
            return super().create_optimizer(model)

    def create_scheduler(self, *args: Any, **kwargs: Any) -> Any:
        with _named_by_section():
            return super().create_scheduler(*args, **kwargs)

    def floating_point_ops(self, inputs: Any) -> int:
        return 0

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """None: trl's names no model, and lists its tags in the order of a set, another in each process.

        As a part of the artifact it would make a repeated stage differ from the first one.
        """

    def save_checkpoint(self, write: Callable[[Path], None]) -> None:
        """Writes aside and seals; which checkpoints stay is `Checkpoints`' to decide.

        None after the last step: going on from there, transformers would take one more. None after a step
        that went wrong: those before it are the good ones.
        """
        if self.state.global_step == self.state.max_steps:
            return
        self.spikes.check(self.state.global_step)
        sums = self.resumption.sums()

        def write_all(folder: Path) -> None:
            write(folder)
            if is_main_process():
                write_json(folder / SUMS, sums)
                write_json(folder / LOSSES, list(self.spikes.losses))

        self.checkpoints.save(self.state.global_step, write_all)


@contextmanager
def _named_by_section() -> Iterator[None]:
    """What torch and transformers find wrong with optimizer and schedule stands in `trainer`."""
    try:
        yield
    except (ImportError, TypeError, ValueError) as error:
        raise ConfigError(f"trainer: {error}") from error
