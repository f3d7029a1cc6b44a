"""What a stage that trains holds on each GPU, by part, at the moment when it holds most."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from ..deepspeed_file import DeepSpeedFile
from ..training.micro_batches import split_step
from ..training.settings import TrainedSettings
from . import passes, states
from .engine import Engine
from .lora import adapted
from .moments import Parts, computing, held, moments
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

    gpu: Parts
    host: Parts
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
    gpu, host = held(model, engine)
    found = moments(model, engine, batch)
    found["evaluation"] = {
        "gathered": states.gathered(model, engine),
        "buffers": states.waiting_buffers(model, engine),
        "activations": passes.evaluation(model.shape, computing(model, engine), evaluated, loss=batch.loss),
    }
    return largest(gpu, host, found)


def largest(gpu: Parts, host: Parts, found: Mapping[str, Parts]) -> Account:
    """The account at the moment with the highest sum, without parts of no size.

    `gpu` and `host`: what is held all the time; `found`: what exists besides, by moment.
    """
    moment = max(found, key=lambda name: sum(found[name].values()))
    parts = dict(gpu)
    for name, size in found[moment].items():
        parts[name] = parts.get(name, 0) + size
    return Account({name: size for name, size in parts.items() if size}, host, moment)
