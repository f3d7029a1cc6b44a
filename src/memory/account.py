"""What a stage that trains holds on each GPU, by part, at the moment when it holds most."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from ..deepspeed_file import DeepSpeedFile
from ..training.micro_batches import split_step
from ..training.settings import LoraSettings, TrainedSettings
from . import passes, states
from .engine import Engine
from .passes import Loss, MicroBatch
from .shape import Shape
from .states import Trained

LOSSES: dict[str | None, Loss] = {
    "transformers.TrainingArguments": "whole",
    "trl.SFTConfig": "chunked",
    "trl.RewardConfig": "scores",
}


class Account(NamedTuple):
    """Bytes of one rank by part.

    Attributes:
        gpu: on its GPU at `moment`.
        host: in the host's memory: what the ZeRO file offloads.
        moment: `loss` (all activations exist), `backward` (of a layer), `step` (of the optimizer) or
            `evaluation` (on held-out rows).
    """

    gpu: dict[str, int]
    host: dict[str, int]
    moment: str

    @property
    def total(self) -> int:
        """Bytes on the GPU. Not counted: CUDA's context and kernels, NCCL's buffers, fragmentation."""
        return sum(self.gpu.values())


def account(settings: TrainedSettings, config: Mapping[str, Any], ranks: int) -> Account:
    """What a rank of `pretrain`, `sft` or `reward` holds on a GPU.

    Rows count as full: packed rows are, pairs may be up to `max_length`. Parts are those of `account_of`.

    Args:
        settings: of the stage; its ZeRO file is read.
        config: content of the model's `config.json`.
        ranks: number of GPUs.

    Raises:
        DataError: the config is not that of a Llama.
        OSError, ValueError: the ZeRO file cannot be read.
    """
    trainer = settings.trainer_values
    loss = LOSSES[settings.trainer_class]
    shape = Shape.from_config(config, scores=loss == "scores")
    bf16 = bool(trainer.get("bf16", True))  # on a GPU
    if settings.deepspeed is None:
        engine = Engine.plain(ranks, bf16=bf16)
    else:
        content = DeepSpeedFile.read(settings.deepspeed).content
        engine = Engine.of_file(content, shape, ranks, bf16=bf16)
    rows, _ = split_step(settings, ranks)
    batch = MicroBatch(
        rows * settings.row_tokens,
        loss,
        bool(trainer.get("gradient_checkpointing", loss != "whole")),  # TRL's default is True
    )
    model = Trained.whole(shape) if settings.lora is None else adapted(shape, settings.lora)
    evaluated = {"whole": batch.tokens, "scores": max(settings.row_tokens // 2, passes.SCORED_AT_ONCE)}
    return account_of(model, engine, batch, evaluated=evaluated.get(loss, 0))


def account_of(model: Trained, engine: Engine, batch: MicroBatch, *, evaluated: int = 0) -> Account:
    """Bytes of `model` under `engine` while it trains on `batch`, and evaluates `evaluated` tokens at once.

    Parts: `weights`, `gradients`, `optimizer`; `gathered` (weights by ZeRO-3, or copies by autocast);
    `buffers` (of gradients that are reduced, or in the step); `activations`; `logits` (with gradients).
    """
    shape = model.shape
    # a frozen base model is in bf16, and so are its hidden states: autocast has nothing to copy
    computing = (
        replace(engine, precision="bf16") if model.frozen and engine.precision == "autocast" else engine
    )
    held = {
        "weights": states.weights(model, engine),
        "gradients": states.gradients(model, engine),
        "optimizer": states.optimizer(model, engine),
    }
    on_host = [
        *(["weights"] if engine.offload_weights else []),
        *(["gradients", "optimizer"] if engine.offload_optimizer else []),
    ]
    host = {name: held.pop(name) for name in on_host}
    if copies := states.host_buffers(model, engine):
        host["buffers"] = copies
    gathered = states.gathered(model, engine)
    buffers = states.backward_buffers(model, engine)
    moments = {
        "loss": {
            "gathered": gathered + passes.cached_copies(shape, computing, batch.loss),
            "buffers": buffers,
            "activations": passes.stored(shape, computing, batch),
            "logits": passes.logits(shape, computing, batch),
        },
        "backward": {
            "gathered": gathered + passes.backward_copies(shape, computing, batch),
            "buffers": buffers,
            "activations": passes.backward(shape, computing, batch),
        },
        "step": {"buffers": states.step_buffers(model, engine)},
        "evaluation": {
            "gathered": gathered,
            "buffers": states.waiting_buffers(model, engine),
            "activations": passes.evaluation(shape, computing, evaluated, loss=batch.loss),
        },
    }
    moment = max(moments, key=lambda name: sum(moments[name].values()))
    parts = held | moments[moment]
    return Account({name: size for name, size in parts.items() if size}, host, moment)


def adapted(shape: Shape, lora: LoraSettings) -> Trained:
    """A frozen model with an adapter of two matrices per layer it adapts, and a trained score head."""
    wanted = lora.target_modules
    adapters = sum(
        lora.r * (inputs + outputs)
        for name, (inputs, outputs) in shape.matrices.items()
        if _is_adapted(name, wanted)
    )
    head = sum(shape.head) if shape.scores else 0
    return Trained(shape, shape.num_hidden_layers * adapters + head, shape.parameters - head)


def _is_adapted(name: str, wanted: str | list[str]) -> bool:
    """Whether peft's `target_modules` names a matrix: by the ends of names, or by a regular expression."""
    if wanted == "all-linear":
        return True
    full = f"model.layers.0.{name}"
    if isinstance(wanted, str):
        return re.fullmatch(wanted, full) is not None
    return any(full.endswith(f".{end}") for end in wanted)
