"""What an engine holds all the time, and what it holds besides at the moments of a training step."""

from __future__ import annotations

from dataclasses import replace

from . import passes, states
from .engine import Engine
from .passes import MicroBatch
from .states import Trained

Parts = dict[str, int]  # bytes by part


def held(model: Trained, engine: Engine, *, waiting: bool = False) -> tuple[Parts, Parts]:
    """The states of training on the GPU and in the host's memory: `weights`, `gradients`, `optimizer`.

    On the host also `buffers`, with an offloaded optimizer. `waiting`: between two steps.
    """
    summed = states.gradients if engine.offload_gradients or not waiting else states.waiting_gradients
    gpu = {
        "weights": states.weights(model, engine),
        "gradients": summed(model, engine),
        "optimizer": states.optimizer(model, engine),
    }
    on_host = [
        *(["weights"] if engine.offload_weights else []),
        *(["gradients"] if engine.offload_gradients else []),
        *(["optimizer"] if engine.offload_optimizer else []),
    ]
    host = {name: gpu.pop(name) for name in on_host}
    if copies := states.host_buffers(model, engine):
        host["buffers"] = copies
    return gpu, host


def moments(model: Trained, engine: Engine, batch: MicroBatch) -> dict[str, Parts]:
    """What exists on the GPU besides the states at each moment of a step.

    Moments: `loss` (all activations exist), `backward` (of a layer), `step` (of the optimizer). Parts:
    `gathered` (weights by ZeRO-3, or copies by autocast), `buffers` (of gradients that are reduced, or in the
    step), `activations`, `logits` (with gradients).
    """
    shape, by = model.shape, computing(model, engine)
    gathered, buffers = states.gathered(model, engine), states.backward_buffers(model, engine)
    return {
        "loss": {
            "gathered": gathered + passes.copies(shape, by, batch.loss, saved=not batch.checkpointing),
            "buffers": buffers,
            "activations": passes.stored(shape, by, batch),
            "logits": passes.logits(shape, by, batch),
        },
        "backward": {
            "gathered": gathered + passes.backward_copies(shape, by, batch),
            "buffers": buffers,
            "activations": passes.backward(shape, by, batch),
        },
        "step": {"buffers": states.step_buffers(model, engine)},
    }


def computing(model: Trained, engine: Engine) -> Engine:
    """The engine by whose precision activations are counted.

    A frozen base model is in bf16, and so are its hidden states: autocast has nothing to copy.
    """
    return replace(engine, precision="bf16") if model.adapter and engine.precision == "autocast" else engine
