"""What the YAML of every stage that trains has in common (imports no torch)."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from ..data.settings import RowSettings
from ..settings import Settings, StageSettings
from ..yaml_file import parse_json

RESERVED = {
    "output_dir": "it is the artifact's folder",
    "seed": "it is the stage's own `seed`",
    "data_seed": "rows are ordered by the stage's own `seed`",
    "deepspeed": "it is the stage's own `deepspeed`, beside `trainer`",
    "use_cpu": "the CPU is used where there is no GPU",
    "report_to": "wandb and metrics.jsonl are always written; WANDB_MODE=disabled turns wandb off",
    "disable_tqdm": "the stage draws its own progress",
    "eval_strategy": "the stage measures when training has ended",
    "do_eval": "the stage measures when training has ended",
    "save_strategy": "checkpoints are saved every `save_steps` steps, and when the run is asked to stop",
    "save_only_model": "a run could not go on from such a checkpoint",
    "resume_from_checkpoint": "the newest whole checkpoint is found by itself",
    "ignore_data_skip": "a run goes on with the rows that it has not had",
    "dataloader_drop_last": "every row of an epoch is trained",
    "load_best_model_at_end": "the stage saves the finished model",
    "push_to_hub": "models stay on this machine",
    "remove_unused_columns": "the stage's rows hold exactly what its collator needs",
    "train_sampling_strategy": "rows are ordered by the stage's own `seed`",
    "average_tokens_across_devices": "losses are always means over the whole global batch",
}

PAPER_OPTIMIZER: dict[str, Any] = {  # section 2.2; section 3 uses the same settings
    "optim": "adamw_torch_fused",  # one kernel a parameter: saves a sixth of a small model's step
    "adam_beta1": 0.9,
    "adam_beta2": 0.95,
    "adam_epsilon": 1e-5,
    "weight_decay": 0.1,
    "max_grad_norm": 1.0,
}

COSINE_TO_10_PERCENT: dict[str, Any] = {  # section 2.2: a cosine whose end is 10% of the peak learning rate
    "lr_scheduler_type": "cosine_with_min_lr",
    "lr_scheduler_kwargs": {"min_lr_rate": 0.1},
}

# Names that change no result, at most its rounding: how a run is spread over machines and memory, what it
# logs and how often, and what it would do when evaluating or uploading, which no stage lets the trainer do.
NO_EFFECT = frozenset(
    f"trainer.{name}"
    for name in """
    gradient_checkpointing gradient_checkpointing_kwargs activation_checkpointing
    activation_checkpointing_kwargs activation_offloading torch_compile torch_compile_backend
    torch_compile_mode use_liger_kernel liger_kernel_config use_cache torch_empty_cache_steps full_determinism
    dataloader_num_workers dataloader_prefetch_factor dataloader_persistent_workers dataloader_pin_memory
    dataloader_multiprocessing_context dataset_num_proc length_column_name
    ddp_backend ddp_timeout ddp_bucket_cap_mb ddp_find_unused_parameters ddp_static_graph local_rank
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
ROWS = "trainer: rows of a step on each rank"

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
    "trust_remote_code": "code of others is never run",
    "model_init_kwargs": "the model is the stage's input",
    "chat_template_path": "the chat template is Llama 2's",
    "eos_token": "it is the tokenizer's own",
    "pad_token": "it is the tokenizer's own",
}


class LoraSettings(Settings):
    """Low-rank adapters in place of all weights; the names are peft's `LoraConfig`'s (extra `lora`)."""

    r: int = Field(8, ge=1)
    """rank"""
    lora_alpha: int = Field(8, ge=1)
    """an adapter counts `lora_alpha / r` times"""
    use_rslora: bool = False
    """`lora_alpha / sqrt(r)` times instead"""
    lora_dropout: float = Field(0.0, ge=0, lt=1)
    """of an adapter's inputs while it is trained"""
    target_modules: str | list[str] = "all-linear"
    """layers with an adapter: the ends of their names, a regular expression, or `all-linear` but for heads"""


class TrainedSettings(StageSettings):
    """A stage with a `trainer:` section, whose names are those of `trainer_class`, and maybe a ZeRO file."""

    trainer: dict[str, Any] = {}
    """names of the trainer's class; what is left out is the paper's for 7B, see each stage.
    `per_device_train_batch_size` left out: at most as many rows as 4,096 tokens hold, at least one;
    `gradient_accumulation_steps` left out: 1 beside a batch size, otherwise what makes up the paper's global
    batch on the ranks of the run"""
    deepspeed: str | None = None
    """a ZeRO file, relative to this YAML; the stage then runs under the `deepspeed` launcher"""
    loss_spike: float | None = Field(None, gt=1)
    """a step whose loss is so many times the median of the last 100 is undone, as is one whose loss is no
    number: training goes back to the newest checkpoint and leaves out the rows since; at most three times"""
    keep_every: int | None = Field(None, gt=0)
    """checkpoints of every so many steps stay until the stage is done, beside the newest ones"""
    lora: LoraSettings | None = None
    """trains an adapter of the model that the stage begins with; left out: all weights"""

    trainer_reserved: ClassVar[dict[str, str]] = RESERVED
    trainer_defaults: ClassVar[dict[str, Any]] = {}
    resumable: ClassVar[bool] = True
    no_effect: ClassVar[frozenset[str]] = NO_EFFECT | {"keep_every"}
    resumes_with: ClassVar[frozenset[str]] = frozenset({"deepspeed", "loss_spike"})

    @property
    def row_tokens(self) -> int:
        """Tokens of a row of training, at most."""
        raise NotImplementedError

    @property
    def step_rows(self) -> int:
        """Rows of a step over all ranks in the paper."""
        raise NotImplementedError

    @property
    def adapter(self) -> dict[str, Any] | None:
        """`lora` by peft's names."""
        return None if self.lora is None else self.lora.model_dump()

    @property
    def trainer_values(self) -> dict[str, Any]:
        """`trainer` over the stage's defaults over the paper's optimizer; batch sizes may be missing."""
        defaults = PAPER_OPTIMIZER | self.trainer_defaults
        if self.trainer.get("lr_scheduler_type") not in (None, defaults.get("lr_scheduler_type")):
            defaults.pop("lr_scheduler_kwargs", None)  # they belong to the default's schedule
        return defaults | self.trainer

    def fingerprinted(self) -> dict[str, Any]:
        """With the defaults of `trainer`: one that is written out changes nothing, another default does.

        A file that the trainer reads settings from counts by its content, too.
        """
        settings = super().fingerprinted()
        settings["trainer"] = self.trainer_values | settings["trainer"]
        for name in FILES:
            path = self.trainer.get(name)
            if isinstance(path, str):
                with suppress(OSError, ValueError):  # the trainer's class says what is wrong with it
                    settings["trainer"][name] = parse_json(Path(path).read_text(encoding="utf-8"))
        return settings

    @classmethod
    def decisive(cls, settings: Mapping[str, Any], resuming: bool = False) -> dict[str, Any]:
        """Of batch size and accumulation the product counts; resuming, it is compared over all ranks."""
        deciding = super().decisive(settings, resuming)
        rows, steps = (deciding.pop(name, None) for name in BATCH)
        if not resuming and rows:
            deciding[ROWS] = rows * (steps or 1)
        elif not resuming and steps:  # of as many rows as fit
            deciding[BATCH[1]] = steps
        return deciding


class PackedSettings(TrainedSettings):
    """A stage that trains on packed rows, whose documents or dialogues don't see each other."""

    no_effect: ClassVar[frozenset[str]] = frozenset({"attn_implementation"})

    attn_implementation: Literal["packed", "sdpa", "eager", "flash_attention_2"] | None = None
    """kernel: `packed` is ours, segment by segment, the default on the CPU; on GPUs the default is `sdpa`;
    `flash_attention_2` needs the package flash-attn. The loss is the same with each: one under
    which documents of a row would see each other is refused or, where it is the default, replaced"""


class FineTunedSettings(RowSettings, PackedSettings):
    """A stage that fine-tunes on packed dialogues (section 3.1). In the paper a step has 64 rows."""

    trainer_class: ClassVar[str | None] = "trl.SFTConfig"
    trainer_reserved: ClassVar[dict[str, str]] = RESERVED | PACKED | TOKENIZED
    trainer_defaults: ClassVar[dict[str, Any]] = {
        "learning_rate": 2e-5,
        "lr_scheduler_type": "cosine",
        "num_train_epochs": 2,
    }
    below: ClassVar[dict[str, str]] = {"ghost_attention": "gatt"}

    max_length: int = Field(4096, gt=1)
    """tokens of a packed row; longer dialogues are refused and counted"""

    @property
    def row_tokens(self) -> int:
        return self.max_length

    @property
    def step_rows(self) -> int:
        return 64
