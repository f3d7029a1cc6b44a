"""Settings shared by all stages that train (imports no torch)."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator

from ..data.settings import DialogueSettings
from ..settings import RankSettings, Settings
from ..yaml_file import parse_json

RESERVED = {
    "output_dir": "it is the stage's `output`",
    "seed": "use the stage's `seed` instead",
    "data_seed": "the stage's `seed` sets the order of the rows",
    "deepspeed": "use the stage's `deepspeed`, beside `trainer`, instead",
    "use_cpu": "the CPU is used if there is no GPU",
    "report_to": "metrics.jsonl and wandb are always written; WANDB_MODE=disabled turns wandb off",
    "disable_tqdm": "the stage draws its own progress bar",
    "eval_strategy": "the stage evaluates at the end of training",
    "do_eval": "the stage evaluates at the end of training",
    "save_strategy": "checkpoints are saved every `save_steps` steps and when a signal stops the run",
    "save_only_model": "a run could not resume from such a checkpoint",
    "resume_from_checkpoint": "a run resumes from its newest intact checkpoint automatically",
    "ignore_data_skip": "a resumed run skips the rows that it has already trained",
    "dataloader_drop_last": "every row of an epoch is trained",
    "load_best_model_at_end": "the stage saves the model of the last step",
    "push_to_hub": "models are not uploaded",
    "remove_unused_columns": "the stage's rows have only the columns that its collator needs",
    "train_sampling_strategy": "the stage's `seed` sets the order of the rows",
    "ddp_timeout": "use the stage's `rank_timeout`, beside `trainer`, instead",
    "auto_find_batch_size": "checkpoints and the order of the rows are for one batch size",
    "average_tokens_across_devices": "losses are always means over the global batch",
}

PAPER_OPTIMIZER: dict[str, Any] = {  # section 2.2; section 3 uses the same settings
    "optim": "adamw_torch_fused",  # one kernel per parameter: saves a sixth of a small model's step
    "adam_beta1": 0.9,
    "adam_beta2": 0.95,
    "adam_epsilon": 1e-5,
    "weight_decay": 0.1,
    "max_grad_norm": 1.0,
}

COSINE_TO_10_PERCENT: dict[str, Any] = {  # section 2.2: a cosine that ends at 10% of the peak learning rate
    "lr_scheduler_type": "cosine_with_min_lr",
    "lr_scheduler_kwargs": {"min_lr_rate": 0.1},
}

# Arguments that don't change the result, except for rounding: distribution over machines and memory, logging,
# and evaluation and uploading, which no stage lets the trainer do.
NO_EFFECT = frozenset(
    f"trainer.{name}"
    for name in """
    gradient_checkpointing gradient_checkpointing_kwargs activation_checkpointing
    activation_checkpointing_kwargs activation_offloading torch_compile torch_compile_backend
    torch_compile_mode use_liger_kernel liger_kernel_config use_cache torch_empty_cache_steps full_determinism
    dataloader_num_workers dataloader_prefetch_factor dataloader_persistent_workers dataloader_pin_memory
    dataloader_multiprocessing_context dataset_num_proc length_column_name
    ddp_backend ddp_bucket_cap_mb ddp_find_unused_parameters ddp_static_graph local_rank
    save_steps save_total_limit save_on_each_node enable_jit_checkpoint
    restore_callback_states_from_checkpoint
    logging_strategy logging_steps logging_first_step logging_nan_inf_filter log_on_each_node log_level
    log_level_replica include_num_input_tokens_seen skip_memory_metrics debug
    run_name project trackio_space_id trackio_bucket_id trackio_static_space_id
    eval_steps eval_delay eval_on_start eval_accumulation_steps eval_do_concat_batches eval_use_gather_object
    per_device_eval_batch_size prediction_loss_only include_for_metrics batch_eval_metrics bf16_full_eval
    fp16_full_eval metric_for_best_model greater_is_better do_train do_predict
    hub_token hub_private_repo hub_model_id hub_strategy hub_always_push hub_revision
    """.split()
)
FILES = "fsdp_config", "accelerator_config"  # a mapping, or the path of a JSON file
BATCH = "trainer.per_device_train_batch_size", "trainer.gradient_accumulation_steps"
ROWS = "trainer: rows per step on each rank"

PACKED = dict.fromkeys(
    (
        "max_length",
        "truncation_mode",
        "packing",
        "packing_strategy",
        "eval_packing",
        "padding_free",
        "pad_to_multiple_of",
        "dataset_kwargs",
        "dataset_text_field",
        "completion_only_loss",
        "assistant_only_loss",
    ),
    "rows are tokenized, masked and packed by the stage; see `max_length`",
)

TOKENIZED = {
    "trust_remote_code": "code from model repositories is never run",
    "model_init_kwargs": "the model is the stage's input",
    "chat_template_path": "the chat template is set by `chat_format`, or is the tokenizer's",
    "eos_token": "it is the tokenizer's",
    "pad_token": "it is the tokenizer's",
}


class LoraSettings(Settings):
    """Low-rank adapters instead of all weights; names as in peft's `LoraConfig` (needs the extra `lora`)."""

    r: int = Field(8, ge=1)
    """rank of the adapters"""
    lora_alpha: int = Field(8, ge=1)
    """scale of the adapters: their output is multiplied by `lora_alpha / r`"""
    use_rslora: bool = False
    """whether the scale is `lora_alpha / sqrt(r)` instead"""
    lora_dropout: float = Field(0.0, ge=0, lt=1)
    """dropout rate of the adapters' inputs during training"""
    target_modules: str | list[str] = "all-linear"
    """layers with an adapter: ends of their names, a regular expression, or `all-linear` (all but heads)"""
    merge: bool = True
    """whether to publish the whole model, base model and adapter merged, beside the adapter; otherwise later
    stages load the base model and merge the adapter in memory"""


class TrainedSettings(RankSettings):
    """A stage with a `trainer:` section of arguments of `trainer_class`, and optionally a ZeRO file."""

    trainer: dict[str, Any] = {}
    """arguments of the trainer's class; defaults are the paper's for 7B, see each stage. Default of
    `per_device_train_batch_size`: at most as many rows as 4,096 tokens hold, at least one; default of
    `gradient_accumulation_steps`: 1 if a batch size is set, otherwise the number with which the ranks of the
    run reach the paper's global batch"""
    loss_spike: float | None = Field(None, gt=1)
    """multiple of the median of the last 100 losses above which a loss is a spike (null: never); after a
    spike, NaN or infinite loss, training rolls back to the newest checkpoint and skips the batches since, at
    most three times"""
    keep_every: int | None = Field(None, gt=0)
    """number of steps between checkpoints that are kept until the stage is finished, besides the newest"""
    lora: LoraSettings | None = None
    """settings of an adapter that is trained instead of the model's weights; by default all weights are
    trained"""

    @field_validator("trainer")
    @classmethod
    def _keeps_a_checkpoint(cls, trainer: dict[str, Any]) -> dict[str, Any]:
        kept = trainer.get("save_total_limit")
        if isinstance(kept, int) and kept < 1:
            raise ValueError(f"save_total_limit: {kept} would keep no checkpoint; use 1 or more")
        return trainer

    trainer_reserved: ClassVar[dict[str, str]] = RESERVED
    trainer_defaults: ClassVar[dict[str, Any]] = {}
    resumable: ClassVar[bool] = True
    no_effect: ClassVar[frozenset[str]] = NO_EFFECT | {"keep_every"}
    resumes_with: ClassVar[frozenset[str]] = frozenset({"loss_spike"})

    @property
    def row_tokens(self) -> int:
        """Maximum number of tokens in a training row."""
        raise NotImplementedError

    @property
    def step_rows(self) -> int:
        """Number of rows in the paper's global batch."""
        raise NotImplementedError

    @property
    def adapter(self) -> dict[str, Any] | None:
        """`lora` as arguments of peft's `LoraConfig`."""
        return None if self.lora is None else self.lora.model_dump(exclude={"merge"})

    @property
    def trainer_values(self) -> dict[str, Any]:
        """`trainer` with the stage's defaults and the paper's optimizer; batch sizes may be missing."""
        defaults = PAPER_OPTIMIZER | self.trainer_defaults
        if self.trainer.get("lr_scheduler_type") not in (None, defaults.get("lr_scheduler_type")):
            defaults.pop("lr_scheduler_kwargs", None)  # they belong to the default schedule
        return defaults | self.trainer

    def fingerprinted(self) -> dict[str, Any]:
        """The settings, with the defaults of `trainer` and the content of files that `trainer` refers to.

        Writing out a default does not change the fingerprint; a new release with another default does.
        """
        settings = super().fingerprinted()
        settings["trainer"] = self.trainer_values | settings["trainer"]
        for name in FILES:
            path = self.trainer.get(name)
            if isinstance(path, str):
                with suppress(OSError, ValueError):  # the trainer's class reports the error
                    settings["trainer"][name] = parse_json(Path(path).read_text(encoding="utf-8"))
        return settings

    @classmethod
    def decisive(cls, settings: Mapping[str, Any], resuming: bool = False) -> dict[str, Any]:
        """Replaces batch size and accumulation by their product; resuming checks the global batch."""
        decisive = super().decisive(settings, resuming)
        rows, accumulation = (decisive.pop(name, None) for name in BATCH)
        if not resuming and rows:
            decisive[ROWS] = rows * (accumulation or 1)
        elif not resuming and accumulation:  # the batch size is its default
            decisive[BATCH[1]] = accumulation
        return decisive


class PackedSettings(TrainedSettings):
    """A stage that trains on packed rows, in which documents or dialogues don't see each other."""

    no_effect: ClassVar[frozenset[str]] = frozenset({"attn_implementation"})

    attn_implementation: Literal["packed", "sdpa", "eager", "flash_attention_2"] | None = None
    """attention kernel: `packed` (segment by segment, without a mask; the default), `sdpa` (a dense mask),
    `eager` or `flash_attention_2` (needs the package flash-attn). The loss is the same with each; a kernel
    with which documents of a row would see each other is rejected or, if it is the default, replaced"""


class FineTunedSettings(DialogueSettings, PackedSettings):
    """A stage that fine-tunes on packed dialogues (section 3.1). The paper's global batch is 64 rows."""

    trainer_class: ClassVar[str | None] = "trl.SFTConfig"
    trainer_reserved: ClassVar[dict[str, str]] = RESERVED | PACKED | TOKENIZED
    trainer_defaults: ClassVar[dict[str, Any]] = {
        "learning_rate": 2e-5,
        "lr_scheduler_type": "cosine",
        "num_train_epochs": 2,
    }

    max_length: int = Field(4096, gt=1)
    """number of tokens in a packed row; longer dialogues are skipped and counted"""

    @property
    def row_tokens(self) -> int:
        return self.max_length

    @property
    def step_rows(self) -> int:
        return 64
