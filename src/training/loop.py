"""A run of an `OrderedTrainer` from start or checkpoint to end, and its saved weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import PrinterCallback, Trainer
from transformers.integrations.deepspeed import unset_hf_deepspeed_config

from ..checkpoints.universal import fit_to_ranks
from ..console import say
from ..distributed import group
from ..errors import Interrupted
from ..model.lora import ADAPTER, is_adapted, merged, save_adapter
from ..model.saving import save_model
from ..processes import is_main_process
from .callbacks import Progress, StopWhenAsked
from .health import peak_memory, utilization
from .interruption import interruptible
from .ordered_trainer import OrderedTrainer
from .resumption import check_rows_per_step
from .tracking import Tracker


def run_trainer(
    trainer: OrderedTrainer, tracker: Tracker, *, items_per_row: float, unit: str
) -> dict[str, Any]:
    """Trains to the end with progress and tracking, and says how it went.

    A run that was killed before goes on from its newest whole checkpoint, also with other ranks or under
    another ZeRO stage. One that is asked to stop saves itself after the step under way.

    Returns `steps`, `train_loss` (mean over the run), `final_loss` (mean since the last but one logging
    step), `train_seconds`, `<unit>_per_second`, what the device made of it and `peak_memory_gb`; a row of
    the data holds `items_per_row` of `unit`.

    Raises:
        LlamitaError: steps went wrong again and again.
        ConfigError: an unfinished run can't go on like this.
        RolledBack: a step went wrong; called again, it goes on from before, without the rows since.
        Interrupted: it was asked to stop.
    """
    checkpoint, description = trainer.checkpoint, trainer.description
    step = 0
    if checkpoint is not None:
        step = trainer.checkpoints.step(checkpoint)
        say(f"{description}: going on after step {step:,}")
        fit_to_ranks(checkpoint, trainer)
    tracker.rewind(step)
    if checkpoint is not None:
        check_rows_per_step(checkpoint, trainer.args)
    items_per_epoch = len(trainer.order) * items_per_row
    trainer.add_callback(Progress(tracker, description, items_per_epoch, unit=unit, watch=trainer.watch))
    trainer.remove_callback(PrinterCallback)
    trainer.model.config.use_cache = False  # packed rows would see each other through a cache
    with interruptible() as asked:
        stop = StopWhenAsked(asked)
        trainer.add_callback(stop)
        result = trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
        trainer.spikes.check(result.global_step)
    seconds = trainer.resumption.seconds()
    trainer.model.config.use_cache = True  # what is saved is for generation
    if stop.stopped:
        raise Interrupted(f"{description}: stopped after step {result.global_step:,}; run it again to go on")
    per_second = trainer.state.epoch * items_per_epoch / seconds
    return {
        "steps": result.global_step,
        "train_loss": result.training_loss,
        "final_loss": _last_loss(trainer.state.log_history),
        "train_seconds": seconds,
        f"{unit}_per_second": per_second,
        **utilization(trainer.watch, per_second),
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
