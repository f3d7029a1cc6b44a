"""Runs an `OrderedTrainer`, from the start or from a checkpoint, and saves the trained model."""

from __future__ import annotations

import gc
import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import PrinterCallback, Trainer
from transformers.integrations.deepspeed import unset_hf_deepspeed_config

from ..checkpoints.universal import fit_to_ranks
from ..console import say
from ..deepspeed_file import zero_stage
from ..distributed import group
from ..errors import Interrupted
from ..model.checkpoint import load_causal_lm, load_reward_model
from ..model.lora import ADAPTER, is_adapted, plain, save_adapter
from ..model.saving import save_config, save_model, save_partitioned
from ..model.sharded import forget
from ..processes import phase
from .callbacks import Progress, StopOnSignal
from .interruption import interruptible
from .monitoring import peak_memory, utilization
from .ordered_trainer import OrderedTrainer
from .resumption import check_rows_per_step
from .tracking import Tracker


def run_trainer(
    trainer: OrderedTrainer, tracker: Tracker, *, items_per_row: float, unit: str
) -> dict[str, Any]:
    """Trains to the last step, with a progress bar and logging, and returns a summary.

    A run that was killed resumes from its newest intact checkpoint, also on another number of ranks or with
    another ZeRO stage. After SIGTERM, SIGHUP or Ctrl-C it saves a checkpoint at the end of the current step.

    Args:
        items_per_row: number of tokens or pairs in one row of the data.
        unit: "tokens" or "pairs".

    Returns:
        `steps`, `train_loss` (mean over the run), `final_loss` (last logged one), `train_seconds`,
        `<unit>_per_second`, `peak_memory_gb` and what `utilization` returns.

    Raises:
        LlamitaError: the loss diverged again after several rollbacks.
        ConfigError: the checkpoint does not fit the settings or ranks of this run.
        RolledBack: the loss diverged; the next call resumes from the last checkpoint and skips the batches
            since.
        Interrupted: a signal stopped the run.
    """
    checkpoint, description = trainer.checkpoint, trainer.description
    step = 0
    if checkpoint is not None:
        step = trainer.checkpoints.step(checkpoint)
        say(f"{description}: resuming after step {step:,}")
        check_rows_per_step(checkpoint, trainer.args)
        fit_to_ranks(checkpoint, trainer)
    tracker.rewind(step)
    items_per_epoch = len(trainer.order) * items_per_row
    trainer.add_callback(Progress(tracker, description, items_per_epoch, unit=unit, monitor=trainer.monitor))
    trainer.remove_callback(PrinterCallback)
    trainer.model.config.use_cache = False  # with a cache, documents of a packed row would see each other
    with interruptible() as stop_requested:
        stop = StopOnSignal(stop_requested)
        trainer.add_callback(stop)
        result = trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
        trainer.spikes.check(result.global_step)
    seconds = trainer.resumption.seconds()
    trainer.model.config.use_cache = True  # the saved model is used for generation
    if stop.stopped:
        saved = trainer.saved == result.global_step
        where = "" if saved else ", from an earlier step: this one was not saved"
        raise Interrupted(
            f"{description}: stopped after step {result.global_step:,}; run the same command to resume{where}"
        )
    per_second = trainer.state.epoch * items_per_epoch / seconds
    return {
        "steps": result.global_step,
        "train_loss": result.training_loss,
        "final_loss": _last_loss(trainer.state.log_history),
        "train_seconds": seconds,
        f"{unit}_per_second": per_second,
        **utilization(trainer.monitor, per_second),
        "peak_memory_gb": peak_memory(),
    }


def _last_loss(history: list[dict[str, Any]]) -> float | None:
    return next((float(row["loss"]) for row in reversed(history) if "loss" in row), None)


@phase("saving")
def save_trained(trainer: Trainer, tokenizer: Any, folder: Path, *, merge: bool = True) -> None:
    """Saves the trained model as a plain Hugging Face folder; every rank calls it, with any ZeRO stage.

    What the folder contains is removed first: a save that was killed may have left weights in other files.
    An adapter is saved beside it. `merge`: whether the folder then has the merged weights, for which rank 0
    loads the base model on the CPU, or none.
    """
    model = trainer.accelerator.unwrap_model(trainer.model)
    partitioned = zero_stage(trainer.args.deepspeed) == 3
    group.once("saving", lambda: _remove(folder))
    if partitioned:
        trainer.deepspeed.empty_partition_cache()  # weights that the last forward pass had prefetched
    if is_adapted(model):
        save_adapter(model, folder.with_name(ADAPTER))
    elif partitioned:
        save_partitioned(model, tokenizer, folder)
    else:
        group.once("saving", lambda: save_model(model, tokenizer, folder, state_dict=_state(trainer)))
    unset_hf_deepspeed_config()  # otherwise a rank that loads a model alone waits for the others forever
    if is_adapted(model):
        group.once("saving", lambda: _publish_adapted(plain(model), tokenizer, folder, merge=merge))
    group.barrier()


def _remove(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)


def _state(trainer: Trainer) -> Any:
    return trainer.accelerator.get_state_dict(trainer.deepspeed) if trainer.is_deepspeed_enabled else None


def _publish_adapted(model: Any, tokenizer: Any, folder: Path, *, merge: bool) -> None:
    save_config(model, tokenizer, folder)
    if merge:
        load = load_reward_model if hasattr(model, "score") else load_causal_lm
        save_model(load(folder.parent), tokenizer, folder)


def release(trainer: Trainer) -> None:
    """Frees the memory of a trained model: weights, gradients, optimizer and engine.

    The caller must have no other reference to the model.
    """
    engine = trainer.model_wrapped
    trainer.accelerator.free_memory()
    if trainer.is_deepspeed_enabled:
        engine.destroy()
    if zero_stage(trainer.args.deepspeed) == 3:
        forget(engine.module)
    trainer.callback_handler.callbacks.clear()
    vars(trainer).clear()
    del trainer, engine
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
