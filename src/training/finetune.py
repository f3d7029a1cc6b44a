"""Fine-tuning on packed dialogues with `trl.SFTTrainer` (section 3.1): for sft and rejection."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch.nn.functional as F
from torch import Tensor
from transformers import LlamaForCausalLM, Trainer
from trl import SFTConfig, SFTTrainer

from ..chat_format.packing import PackedCollator, PackedRow, pack_dialogues
from ..data.intake import Intake
from ..data.rows import Dialogue
from ..errors import ConfigError
from ..model.architecture import carries_state, context_of
from ..model.flops import training_flops_per_token
from ..model.lora import plain
from ..model.padding import UNTRAINED
from .arguments import trainer_section, training_arguments
from .attention import NAME, attending_within_segments, one_row
from .health import LOSS_ONLY, MonitorOptions
from .health import watch as watched
from .isolation import Isolation
from .loop import run_trainer, save_trained
from .ordered_trainer import OrderedTrainer
from .settings import FineTunedSettings
from .tracking import Tracker


class PackedTrainer(OrderedTrainer, SFTTrainer):
    """`SFTTrainer` over rows that are tokenized, masked and packed already."""

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        kernel = plain(self.model).config._attn_implementation
        if self.args.device.type == "cpu" and kernel == NAME:
            # trl's loss never holds all logits at once, which pays for large vocabularies on GPUs; here it
            # would take a quarter of the step. This one is the same number.
            return Trainer.compute_loss(self, model, trained_tokens_only(inputs), *args, **kwargs)
        if kernel == "flash_attention_2":
            inputs = one_row(inputs)
        # Llama keeps the dialogues of a row apart only if no cache is asked for (see chat_format/packing.py)
        return super().compute_loss(model, {**inputs, "use_cache": False}, *args, **kwargs)


def trained_tokens_only(batch: Mapping[str, Tensor]) -> dict[str, Any]:
    """Packed rows as one long row whose logits are asked for at the trained tokens alone.

    Most tokens of a dialogue are not trained, and logits cost as much as a layer. Needs an attention that
    goes by segments (`attention.py`): to one with a mask, a long row is dearer than many.
    """
    labels = F.pad(batch["labels"], (0, 1), value=UNTRAINED)[:, 1:].flatten()  # of the token that follows
    trained = (labels != UNTRAINED).nonzero().squeeze(1)
    return {
        "input_ids": batch["input_ids"].view(1, -1),
        "position_ids": batch["position_ids"].view(1, -1),
        "labels": labels,  # asks for a loss, which then reads the shifted ones
        "shift_labels": labels[trained],
        "logits_to_keep": trained,
        "use_cache": False,
    }


def finetune_on_dialogues(
    settings: FineTunedSettings,
    model: LlamaForCausalLM,
    tokenizer: Any,
    *,
    dialogues: Sequence[Dialogue],
    intake: Intake,
    out: Path,
    description: str,
) -> dict[str, Any]:
    """Packs dialogues, trains `model` on them and saves it to `out/model`.

    Dialogues that don't fit into a row are counted in `intake`.

    Returns the metrics of packing, of `intake` and of the training. Raises as `pack_dialogues` and
    `finetune_packed` do.
    """
    rows, counts = pack_dialogues(
        tokenizer,
        dialogues,
        settings.max_length,
        context_length=context_of(model.config),
        seed=settings.seed,
        one_per_row=carries_state(plain(model)),
    )
    intake.skipped.update(counts["skipped"])
    intake.write(out)
    with Tracker(out, settings.model_dump(mode="json")) as tracker:
        trained = finetune_packed(
            model,
            tokenizer,
            rows,
            trainer=trainer_section(settings),
            seed=settings.seed,
            out=out,
            save_to=out / "model",
            tracker=tracker,
            deepspeed=settings.deepspeed,
            description=description,
            watch=watched(settings),
            attention=settings.attn_implementation,
        )
    return counts | intake.metrics() | trained


def finetune_packed(
    model: LlamaForCausalLM,
    tokenizer: Any,
    rows: Sequence[PackedRow],
    *,
    trainer: Mapping[str, Any],
    seed: int,
    out: Path,
    save_to: Path,
    tracker: Tracker,
    deepspeed: str | None = None,
    description: str = "fine-tuning",
    watch: MonitorOptions = LOSS_ONLY,
    attention: str | None = None,
) -> dict[str, Any]:
    """Trains `model` on packed rows and saves it to `save_to` with its tokenizer.

    The loss is the mean over all trained tokens of the global batch.

    Args:
        model: as `model.lora.load_trainable` makes it.
        rows: as `data.packing.pack` makes them, all of one length.
        out: where the trainer may leave files of its own.
        trainer: names of `trl.SFTConfig`, as `trainer_section` makes them.
        deepspeed: path of a ZeRO file; the process must then run under a launcher.
        watch: its FLOPs are filled in.
        attention: the kernel, see `attending_within_segments`.

    Returns:
        what `run_trainer` returns.

    Raises:
        ConfigError: a combination that `SFTConfig` refuses.
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
    columns = {
        name: np.stack([row[name] for row in rows])  # type: ignore[literal-required]  # the row's own names
        for name in PackedRow.__annotations__
    }
    attended = float(columns["position_ids"].mean()) + 1
    fine_tuner = PackedTrainer(
        model=model,
        args=arguments,
        train_dataset=datasets.Dataset.from_dict(columns).with_format("numpy"),
        data_collator=PackedCollator(),
        processing_class=tokenizer,
        description=description,
        watch=replace(watch, flops_per_item=training_flops_per_token(model.config, attended)),
    )
    if not carries_state(plain(model)):  # of those a row holds one dialogue
        fine_tuner.add_callback(Isolation(fine_tuner, attention, "expected a model with RoPE"))
    elif attention in (NAME, "flash_attention_2"):
        raise ConfigError(
            f"attn_implementation: {attention} joins the rows of a batch, and a {type(plain(model)).__name__} "
            "would carry its state from one to the next; expected sdpa or eager"
        )
    with attending_within_segments(plain(model), arguments.device, attention):
        metrics = run_trainer(fine_tuner, tracker, items_per_row=columns["input_ids"].shape[1], unit="tokens")
    save_trained(fine_tuner, tokenizer, save_to)
    return metrics
