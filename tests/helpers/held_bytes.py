"""Trains a small Llama under ZeRO files on this process's rank and counts the bytes that the rank holds.

Run by tests/memory, once for each rank:
`python held_bytes.py OUT KIND:ZERO_FILE…` writes `OUT/<rank>.json`, a list with `held` of each case. Kinds:
`whole` (all weights of a language model are trained), `sft` and `reward` (with LoRA).
"""

from __future__ import annotations

import gc
import json
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import safetensors.torch
import torch
import transformers
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    LlamaConfig,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from llamita.deepspeed_file import DeepSpeedFile
from llamita.distributed import group
from llamita.model.lora import load_trainable
from llamita.processes import rank
from llamita.training.arguments import base_dtype, training_arguments
from llamita.training.loop import save_trained

SHAPE = {
    "vocab_size": 2000,
    "hidden_size": 256,
    "intermediate_size": 688,
    "num_hidden_layers": 6,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "max_position_embeddings": 64,
}
LORA = {"r": 96, "lora_alpha": 8, "target_modules": "all-linear"}
MICRO_BATCHES = 2


class Untokenized:
    """In place of the tokenizer that is saved with a model."""

    pad_token_id = eos_token_id = bos_token_id = None

    def save_pretrained(self, folder: str) -> None:
        pass


class Count(TrainerCallback):
    """Counts between two micro-batches of the second step, when gradients are being accumulated."""

    def __init__(self) -> None:
        # of earlier engines; kept, so that none has their address
        self._before = with_gradients(all_tensors())
        self.trainer: Any = None
        self.found: dict[str, int] = {}

    def on_substep_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == 1:
            self.found = _count(self.trainer.deepspeed, storages(self._before))


def held(kind: str, zero_file: str, out: Path) -> dict[str, int]:
    """Bytes by part on this rank, in the middle of a step.

    Every tensor of the process is found with `gc`; views of one storage count once. `weights` are the
    parameters and ZeRO-3's partitions of them, `optimizer` the engine's fp32 weights and Adam's states,
    `gradients` all other floating point tensors of at least 1,024 elements: sums, buckets, gradients in bf16;
    `published`: copies that `save_trained` makes after training.
    """
    group.setup(zero_file)
    count = Count()
    section = {
        "bf16": DeepSpeedFile.read(zero_file).computes_in_bf16(gpu=True),
        "per_device_train_batch_size": 1,
        "gradient_accumulation_steps": MICRO_BATCHES,
        "max_steps": 2,
    }
    arguments = training_arguments(TrainingArguments, section, out, seed=0, deepspeed=zero_file)
    arguments.save_strategy = "no"
    rows: Any = [{"input_ids": torch.arange(32), "labels": torch.arange(32)} for _ in range(16)]
    if kind == "reward":
        rows = [row | {"labels": torch.zeros(1)} for row in rows]
    model = new_model(kind, out, arguments)
    count.trainer = Trainer(model=model, args=arguments, train_dataset=rows, callbacks=[count])
    count.trainer.train()
    if kind == "whole":
        with collected() as copies:
            save_trained(count.trainer, Untokenized(), out / Path(zero_file).stem / "model")
        count.found["published"] = max(copies)
    AcceleratorState._reset_state()
    return count.found


def new_model(kind: str, out: Path, arguments: TrainingArguments) -> Any:
    """A model with new weights; with LoRA as the stages load one. Under ZeRO-3 each rank makes its share."""
    labels = {"num_labels": 1, "pad_token_id": 0} if kind == "reward" else {}
    config = LlamaConfig(**SHAPE, **labels)
    auto = AutoModelForSequenceClassification if kind == "reward" else AutoModelForCausalLM
    if kind == "whole":
        return auto.from_config(config)
    folder = out / "base"
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config.to_dict()))
    dtype = base_dtype(arguments, LORA)
    return load_trainable(
        lambda _: auto.from_config(config, dtype=getattr(torch, dtype)), folder, LORA, seed=0
    )


@contextmanager
def collected() -> Iterator[list[int]]:
    """Bytes of tensors that did not exist before, whenever weights are collected or written on this rank."""
    before = list(all_tensors())  # kept, so that no new one has their address
    known, found = storages(before), [0]

    def counting(work: Any) -> Any:
        def call(*args: Any, **options: Any) -> Any:
            result = work(*args, **options)
            found.append(sum(size for at, size in storages(all_tensors()).items() if at not in known))
            return result

        return call

    with ExitStack() as patches:
        for place, name in (
            (Accelerator, "get_state_dict"),
            (safetensors.torch, "save_file"),
            (transformers.modeling_utils, "safe_save_file"),
        ):
            patches.enter_context(patch.object(place, name, counting(getattr(place, name))))
        yield found


def _count(engine: Any, before: dict[int, int]) -> dict[str, int]:
    optimizer = engine.optimizer
    parameters = list(engine.module.parameters())
    partitions = [p.ds_tensor for p in parameters if hasattr(p, "ds_tensor")]
    states = [tensor for group in optimizer.optimizer.param_groups for tensor in group["params"]]
    states += getattr(optimizer, "fp32_partitioned_groups_flat", [])  # of ZeRO-3
    states += [
        value
        for state in optimizer.optimizer.state.values()
        for value in state.values()
        if isinstance(value, Tensor)
    ]
    parts = {"weights": storages([*parameters, *partitions]), "optimizer": storages(states)}
    for place in parts["weights"]:
        parts["optimizer"].pop(place, None)  # in fp32 an engine may update the weights themselves
    known = {*before, *parts["weights"], *parts["optimizer"]}
    others = [tensor for tensor in with_gradients(all_tensors()) if tensor.numel() >= 1024]
    rest = storages(tensor for tensor in others if tensor.is_floating_point())
    parts["gradients"] = {place: size for place, size in rest.items() if place not in known}
    return {name: sum(storages.values()) for name, storages in parts.items()}


def all_tensors() -> Iterator[Tensor]:
    """All tensors of the process."""
    gc.collect()
    for thing in gc.get_objects():
        if issubclass(type(thing), Tensor) and thing.device.type == "cpu" and thing.layout == torch.strided:
            yield thing


def with_gradients(tensors: Iterable[Tensor]) -> list[Tensor]:
    """The tensors, and the gradients of those that have one."""
    found = list(tensors)
    return found + [tensor.grad for tensor in found if tensor.is_leaf and tensor.grad is not None]


def storages(tensors: Iterable[Tensor]) -> dict[int, int]:
    """Address and size of each storage; of a storage of zero bytes, none."""
    found = {}
    for tensor in tensors:
        storage = tensor.untyped_storage()
        if storage.nbytes():
            found[storage.data_ptr()] = storage.nbytes()
    return found


def main(out: Path, cases: list[str]) -> None:
    """Writes what this rank holds in each case."""
    found = [held(*case.split(":", 1), out) for case in cases]
    (out / f"{rank()}.json").write_text(json.dumps(found))
    group.barrier()
    group.shutdown()
    os._exit(0)  # the threads of gloo's many groups sometimes abort a process that ends normally


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
