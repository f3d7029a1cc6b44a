"""Trains one case for `gpu.py` as the stages `pretrain` and `sft` do, and measures speed and memory."""

from __future__ import annotations

import json
import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from gpu_effects import Effects, clean, compiled, without_effect
from gpu_sizes import Result, Training, dialogue_rows, dialogue_tokenizer, document_rows, new_model
from transformers import TrainingArguments
from transformers.trainer_utils import SaveStrategy
from trl import SFTConfig

from llamita.chat_format.packing import PackedCollator
from llamita.distributed import group
from llamita.distributed.device import device
from llamita.memory.account import Account, account
from llamita.model.flops import training_flops_per_token
from llamita.model.initial_weights import new_causal_lm
from llamita.model.sharded import is_active, parameter_count
from llamita.pretrain.settings import PretrainSettings
from llamita.sft.settings import SftSettings
from llamita.training.arguments import trainer_section, training_arguments
from llamita.training.attention import attending_within_segments
from llamita.training.finetune import PackedTrainer
from llamita.training.isolation import Isolation
from llamita.training.loop import release, run_trainer
from llamita.training.monitoring import MonitorOptions
from llamita.training.ordered_trainer import OrderedTrainer
from llamita.training.tracking import Tracker

WARM = 4  # steps before speed is measured
LOGGING = 2  # steps between rows of metrics
SPEEDS = ("tokens_per_second", "tflops_per_second", "mfu")


@dataclass(frozen=True)
class Case:
    """What is trained, and with which settings of the stage.

    Attributes:
        one_document: whether a row is one document instead of many.
        kernel: the stage's `attn_implementation`.
        trainer: entries of the stage's section `trainer`.
        deepspeed: path of a ZeRO file.
        compiled_layers: whether every layer is compiled alone, which no setting of a stage does.
        on_cpu: whether the weights are drawn on the CPU, so that they are the same with and without a GPU.
    """

    name: str
    stage: Literal["pretrain", "sft"] = "pretrain"
    one_document: bool = False
    kernel: str | None = None
    trainer: dict[str, Any] = field(default_factory=dict)
    deepspeed: str | None = None
    compiled_layers: bool = False
    on_cpu: bool = False


def measure(sizes: Training, case: Case, out: Path, peak_tflops: float | None) -> Result:
    """Trains a new model: speed, peak memory beside what `llamita.memory` predicts, and effects of options.

    Speeds are medians without the first `WARM` steps; memory is in GB of 10^9 bytes. Without a GPU there is
    no peak. An error is returned as `error`.
    """
    started = time.monotonic()
    with clean():
        before = torch.cuda.memory_allocated() if torch.cuda.is_available() else 0
        try:
            trained, logged, found = train(sizes, case, out)
        except Exception as error:  # not installed, or too little memory: the next case may work
            return {"error": f"{type(error).__name__}: {error}"[:2000]}
        result: Result = _speed(trained, logged)
        if peak_tflops is not None:
            result["mfu_of_measured_peak"] = result["tflops_per_second"] / peak_tflops
        result |= {"parameters": trained["parameters"], "first_step_seconds": found.pop("first_step_seconds")}
        predicted = account(_settings(sizes, case), _config(sizes).to_dict(), ranks=1)
        peak = trained["peak_memory_gb"] * 1e9 if torch.cuda.is_available() else None
        result |= memory(predicted, peak, before)
        compiling = {"torch_compile": True} if case.compiled_layers else {}
        if missing := without_effect(case.trainer | compiling, case.kernel, found):
            result["no_effect"] = missing
        return result | {"effects": found, "seconds": round(time.monotonic() - started, 1)}


def memory(predicted: Account, peak: float | None, before: float) -> Result:
    """Predicted GB by part, and the peak of torch's allocator as a multiple of their sum.

    `before`: bytes that were allocated before the run, which are not part of it.
    """
    result: Result = {
        "accounted_gb": predicted.total / 1e9,
        "accounted_by_part": {name: round(size / 1e9, 2) for name, size in predicted.gpu.items()},
        "accounted_moment": predicted.moment,
    }
    if predicted.host:
        result["accounted_on_host"] = {name: round(size / 1e9, 2) for name, size in predicted.host.items()}
    if peak is not None:
        result |= {
            "peak_gb": peak / 1e9,
            "before_gb": before / 1e9,
            "peak_over_accounted": (peak - before) / predicted.total,
        }
    return result


def train(sizes: Training, case: Case, out: Path) -> tuple[Result, list[Result], Result]:
    """Trains a new model through the stage's settings, rows, trainer and kernels; no checkpoint is saved.

    Returns the metrics of `run_trainer` with `parameters`, the rows of metrics, and what `Effects` found.
    """
    group.setup(case.deepspeed)
    settings = _settings(sizes, case)
    kind, fixed = TrainingArguments, {}
    if case.stage == "sft":
        kind, fixed = SFTConfig, {"max_length": None, "dataset_kwargs": {"skip_prepare_dataset": True}}
    arguments = training_arguments(
        kind, trainer_section(settings), out, seed=0, deepspeed=case.deepspeed, **fixed
    )
    arguments.save_strategy = SaveStrategy.NO  # 14 GB after the last step
    trainer = _trainer(sizes, case, arguments, out)
    effects = Effects(trainer)
    trainer.add_callback(Isolation(trainer, case.kernel, "this is a fault of the benchmark"))
    trainer.add_callback(effects)
    parameters = parameter_count(trainer.model)
    with Tracker(out, {}) as tracker, attending_within_segments(trainer.model, case.kernel):
        trained = run_trainer(trainer, tracker, items_per_row=sizes.context, unit="tokens")
    release(trainer)
    logged = [json.loads(line) for line in (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return trained | {"parameters": parameters}, logged, effects.found | compiled()


def _settings(sizes: Training, case: Case) -> PretrainSettings | SftSettings:
    """The stage's settings, which choose the trainer's arguments and what is accounted."""
    section = {
        "max_steps": sizes.steps,
        "per_device_train_batch_size": sizes.rows,
        "gradient_accumulation_steps": sizes.accumulation,
        "learning_rate": 1e-4,
        "warmup_steps": 0,
        "logging_steps": LOGGING,
    }
    common = {
        "trainer": section | case.trainer,
        "attn_implementation": case.kernel,
        "deepspeed": case.deepspeed,
    }
    if case.stage == "sft":
        source = {"path": "made by the benchmark", "format": "messages"}
        return SftSettings.model_validate(common | {"dialogues": [source], "max_length": sizes.context})
    return PretrainSettings.model_validate(
        common | {"model": sizes.model.model_dump(), "context_length": sizes.context}
    )


def _config(sizes: Training) -> Any:
    return sizes.model.llama_config(sizes.vocabulary)


def _trainer(sizes: Training, case: Case, arguments: Any, out: Path) -> Any:
    """The stage's trainer with a new model; the arguments exist first, so that ZeRO-3 partitions it."""
    if is_active():
        model: Any = new_causal_lm(_config(sizes), 0)
    else:
        model = new_model(sizes, "cpu" if case.on_cpu else device())
    if case.compiled_layers:
        for layer in model.model.layers:
            layer.compile(backend=sizes.compiler)
    if case.stage == "sft":
        packed = dialogue_rows(sizes)
        return PackedTrainer(
            model=model,
            args=arguments,
            train_dataset=packed.rows,
            data_collator=PackedCollator(),
            processing_class=dialogue_tokenizer(),
            description=case.name,
            monitor=MonitorOptions(training_flops_per_token(model.config, packed.mean_position + 1)),
        )
    rows = document_rows(sizes, None if case.one_document else sizes.mean_length, out / "shards")
    return OrderedTrainer(
        model=model,
        args=arguments,
        train_dataset=rows,
        description=case.name,
        monitor=MonitorOptions(training_flops_per_token(model.config, rows.mean_attended())),
    )


def _speed(trained: Result, logged: list[Result]) -> Result:
    """Medians over the rows after the first steps, and over how many steps."""
    warm = [row for row in logged if row["step"] > WARM]
    found = {
        name: statistics.median(row[f"train/{name}"] for row in warm) for name in SPEEDS if name in trained
    }
    return found | {"rows_measured": len(warm)}
