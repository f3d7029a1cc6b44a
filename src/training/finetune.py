"""Fine-tuning on packed dialogues with `trl.SFTTrainer` (section 3.1), for `sft` and `rejection`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from torch import Tensor
from transformers import Trainer
from trl import SFTConfig, SFTTrainer

from ..chat_format.packed_rows import PackedRows, pack_dialogues
from ..chat_format.packing import PackedCollator
from ..data.intake import Intake
from ..data.row_files import ROWS
from ..data.rows import Dialogue
from ..errors import ConfigError
from ..model.architecture import carries_state, context_of
from ..model.checkpoint import load_causal_lm, model_config
from ..model.flops import training_flops_per_token
from ..model.lora import load_trainable, plain
from ..model.padding import UNTRAINED
from .arguments import base_dtype, trainer_section, training_arguments
from .attention import NAME, attending_within_segments, one_row
from .isolation import Isolation
from .loop import release, run_trainer, save_trained
from .monitoring import LOSS_ONLY, MonitorOptions, monitor_options
from .ordered_trainer import OrderedTrainer
from .settings import FineTunedSettings
from .tracking import Tracker


class PackedTrainer(OrderedTrainer, SFTTrainer):
    """`SFTTrainer` for rows that are already tokenized, masked and packed."""

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        kernel = plain(self.model).config._attn_implementation
        plain_loss = self.args.loss_type == "nll" and self.label_smoother is None
        if self.args.device.type == "cpu" and kernel == NAME and plain_loss:
            # trl's loss never holds all logits at once, which helps with large vocabularies on GPUs; on a CPU
            # it would take a quarter of the step. This loss has the same value.
            return Trainer.compute_loss(self, model, trained_tokens_only(inputs), *args, **kwargs)
        if kernel == "flash_attention_2":
            inputs = one_row(inputs)
        # Llama keeps the dialogues of a row apart only without a cache (see chat_format/packing.py)
        return super().compute_loss(model, {**inputs, "use_cache": False}, *args, **kwargs)


def trained_tokens_only(batch: Mapping[str, Tensor]) -> dict[str, Any]:
    """Joins packed rows to one long row that requests logits of the trained tokens only.

    Most tokens of a dialogue are not trained, and logits cost as much as a layer. Needs the attention of
    `attention.py`: with a mask, one long row would be slower than many short ones.
    """
    labels = F.pad(batch["labels"], (0, 1), value=UNTRAINED)[:, 1:].flatten()  # of the next token
    trained = (labels != UNTRAINED).nonzero().squeeze(1)
    return {
        "input_ids": batch["input_ids"].view(1, -1),
        "position_ids": batch["position_ids"].view(1, -1),
        "labels": labels,  # makes the model compute its loss, from `shift_labels`
        "shift_labels": labels[trained],
        "logits_to_keep": trained,
        "use_cache": False,
    }


def finetune_on_dialogues(
    settings: FineTunedSettings,
    folder: Path,
    tokenizer: Any,
    *,
    dialogues: Sequence[Dialogue],
    identity: Mapping[str, Any],
    intake: Intake,
    out: Path,
    tracker: Tracker,
    description: str,
) -> dict[str, Any]:
    """Packs dialogues, trains the model in `folder` on them and saves it to `out/model`.

    Dialogues that don't fit into a row are counted in `intake`. `identity`: what `dialogues` depend on, see
    `pack_dialogues`.

    Returns the metrics of packing, of `intake` and of training. Raises what `pack_dialogues` and
    `finetune_packed` raise.
    """
    config = model_config(folder)
    rows = pack_dialogues(
        tokenizer,
        dialogues,
        settings.max_length,
        context_length=context_of(config),
        seed=settings.seed,
        folder=out / ROWS,
        identity=identity,
        one_per_row=carries_state(config),
    )
    intake.skipped.update(rows.counts["skipped"])
    intake.write(out)

    def load(arguments: SFTConfig) -> Any:
        dtype = base_dtype(arguments, settings.adapter)
        return load_trainable(
            partial(load_causal_lm, dtype=dtype), folder, settings.adapter, seed=settings.seed
        )

    trained = finetune_packed(
        load,
        tokenizer,
        rows,
        trainer=trainer_section(settings),
        seed=settings.seed,
        out=out,
        save_to=out / "model",
        tracker=tracker,
        deepspeed=settings.deepspeed,
        description=description,
        monitor=monitor_options(settings),
        attention=settings.attn_implementation,
        merge=settings.lora is None or settings.lora.merge,
    )
    return rows.counts | intake.metrics() | trained


def finetune_packed(
    load: Callable[[SFTConfig], Any],
    tokenizer: Any,
    rows: PackedRows,
    *,
    trainer: Mapping[str, Any],
    seed: int,
    out: Path,
    save_to: Path,
    tracker: Tracker,
    deepspeed: str | None = None,
    description: str = "fine-tuning",
    monitor: MonitorOptions = LOSS_ONLY,
    attention: str | None = None,
    merge: bool = True,
) -> dict[str, Any]:
    """Trains a model on packed rows, saves it to `save_to` with its tokenizer, and frees its memory.

    The loss is the mean over all trained tokens of the global batch.

    Args:
        load: loads the model to train as `model.lora.load_trainable` does, once the training arguments exist.
        rows: returned by `chat_format.packed_rows.pack_dialogues`.
        trainer: arguments of `trl.SFTConfig`, returned by `trainer_section`.
        out: folder for the trainer's own files.
        deepspeed: path of a ZeRO file; the process must then be started by a launcher.
        monitor: what to monitor besides the loss; `flops_per_item` is set here.
        attention: name of the kernel, see `attending_within_segments`.
        merge: whether an adapter is also saved merged, see `save_trained`.

    Returns:
        the metrics of `run_trainer`.

    Raises:
        ConfigError: `SFTConfig` rejects the arguments, or the kernel does not fit the model.
        LlamitaError: see `run_trainer`.
    """
    arguments = training_arguments(
        SFTConfig,
        trainer,
        out,
        seed=seed,
        deepspeed=deepspeed,
        max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True},
    )
    model = load(arguments)
    fine_tuner = PackedTrainer(
        model=model,
        args=arguments,
        train_dataset=rows.rows,
        data_collator=PackedCollator(),
        processing_class=tokenizer,
        description=description,
        monitor=replace(
            monitor, flops_per_item=training_flops_per_token(model.config, rows.mean_position + 1)
        ),
    )
    if not carries_state(plain(model).config):  # with state, a row holds one dialogue: nothing to isolate
        fine_tuner.add_callback(Isolation(fine_tuner, attention, "use a model with RoPE"))
    elif attention in (NAME, "flash_attention_2"):
        raise ConfigError(
            f"attn_implementation: {attention} joins the rows of a batch, but {type(plain(model)).__name__} "
            "carries its state from one row to the next; set it to sdpa or eager"
        )
    with attending_within_segments(plain(model), attention):
        metrics = run_trainer(fine_tuner, tracker, items_per_row=rows.length, unit="tokens")
    save_trained(fine_tuner, tokenizer, save_to, merge=merge)
    del model
    release(fine_tuner)
    return metrics
