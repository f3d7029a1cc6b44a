"""Bytes of weights, gradients and optimizer on one rank, and of the buffers that come with them.

Read in DeepSpeed 0.19.8: bf16_optimizer.py (ZeRO-1 in bf16), zero/stage_1_and_2.py, zero/stage3.py,
fp16/fused_optimizer.py (ZeRO-0 in bf16); tests/memory/test_states.py counts the tensors of real engines.
Divisions round up, as the engines pad.
"""

from __future__ import annotations

from dataclasses import dataclass

from .engine import BF16, FP32, Engine
from .shape import Shape

ADAM = 2 * FP32  # two moments
MASTER = FP32  # a copy of the weights in fp32


@dataclass(frozen=True)
class Trained:
    """A model with its numbers of trained and of frozen parameters.

    With an adapter the base model is frozen, in bf16.

    Attributes:
        adapter: numbers of elements of the trained tensors, if they are not those of the shape.
    """

    shape: Shape
    trained: int
    frozen: int = 0
    adapter: tuple[int, ...] = ()

    @classmethod
    def whole(cls, shape: Shape) -> Trained:
        """All weights are trained."""
        return cls(shape, shape.parameters)

    @property
    def largest(self) -> int:
        """Number of elements of the largest weight that has a gradient."""
        return max(self.adapter) if self.adapter else min(max(self.shape.tensors), self.trained)

    def persistent(self, engine: Engine) -> int:
        """Bytes of the weights that ZeRO-3 keeps gathered, because they are small."""
        of_shape = self.shape.persistent(engine.persistence)
        if not self.adapter:
            return engine.width * of_shape
        kept = sum(size for size in self.adapter if size <= engine.persistence)
        return engine.width * kept + (BF16 * of_shape if self.frozen else 0)


def weights(model: Trained, engine: Engine) -> int:
    """The model's weights: whole, under ZeRO-3 a share and the small ones that are always gathered."""
    whole = engine.width * model.trained + BF16 * model.frozen
    if engine.stage != 3:
        return whole
    return _share(whole, engine) + model.persistent(engine)


def optimizer(model: Trained, engine: Engine) -> int:
    """Adam's moments, and the master weights in fp32 unless the weights themselves are updated.

    In fp32, ZeRO-1, 2 and 3 still copy their share of the weights; ZeRO-0 and plain torch do not.
    """
    copied = engine.precision == "bf16" or engine.stage in (1, 2, 3)
    return -(-model.trained // engine.shards) * (ADAM + (MASTER if copied else 0))


def gradients(model: Trained, engine: Engine) -> int:
    """Gradients that are held between micro-batches: under ZeRO-2 and 3 a share, otherwise all.

    `BF16_Optimizer` holds all of them twice: in bf16, and as sums in fp32.
    """
    if engine.stage in (2, 3):
        return _share(engine.sum_width * model.trained, engine)
    if engine.bf16_optimizer:
        return (BF16 + FP32) * model.trained
    return (engine.sum_width if engine.stage == 1 else engine.width) * model.trained


def waiting_gradients(model: Trained, engine: Engine) -> int:
    """Those of `gradients` that an engine still holds when a step is done: sums that are never freed."""
    if engine.stage == 3:
        return gradients(model, engine)
    return FP32 * model.trained if engine.bf16_optimizer else 0


def gathered(model: Trained, engine: Engine) -> int:
    """Weights that ZeRO-3 has gathered at once at most: it prefetches up to `live`, then needs one more."""
    if engine.stage != 3:
        return 0
    most = min(model.shape.parameters, engine.live + max(model.shape.tensors))
    return engine.width * most


def backward_buffers(model: Trained, engine: Engine) -> int:
    """Gradients on their way to where they are accumulated.

    - ZeRO-2, and ZeRO-1 without `BF16_Optimizer`: one bucket, two if communication overlaps, and the copy
      that is reduced.
    - ZeRO-3: the bucket, the gradient of the largest weight, and the copy that is reduced.
    - DistributedDataParallel: its buckets hold all gradients.
    - All others: the gradient of the largest weight, before it is added to the sum.
    """
    if engine.stage in (1, 2) and not engine.bf16_optimizer:
        copies = min(engine.bucket, model.trained)
        width = engine.width if engine.stage == 2 else engine.sum_width
        kept = 2 * model.largest if engine.offload_optimizer else 0  # `temp_grad_buffer_for_gpu_offload`
        return width * (engine.bucket * (1 + engine.overlap) + copies) + kept
    if engine.stage == 3:
        return engine.width * (engine.bucket + 2 * max(model.largest, min(engine.bucket, model.trained)))
    parallel = engine.stage is None and engine.ranks > 1
    return engine.width * (model.largest + (model.trained if parallel else 0))


def step_buffers(model: Trained, engine: Engine) -> int:
    """Copies of gradients that exist only during the optimizer's step.

    - ZeRO-0 in bf16: all gradients in fp32, and once more as one tensor.
    - `BF16_Optimizer`: all sums in bf16, in which they are communicated.
    - ZeRO-3: the sums of one sub-group as one tensor. ZeRO-1 otherwise: those of the rank's share.
    """
    if engine.precision == "bf16" and engine.stage == 0:
        return 2 * FP32 * model.trained
    if engine.bf16_optimizer:
        return BF16 * model.trained
    if engine.stage in (1, 3) and not engine.offload_optimizer:
        share = -(-model.trained // engine.ranks)
        return FP32 * (share if engine.stage == 1 else min(engine.sub_group, share))
    return 0


def host_buffers(model: Trained, engine: Engine) -> int:
    """What offloading adds in the host's memory to the gradients and the optimizer.

    A copy of the gradients' share, for the step; under ZeRO-2 also the updated share of the weights and the
    largest gradient.
    """
    if not engine.offload_optimizer:
        return 0
    share = -(-model.trained // engine.shards)
    if engine.stage == 3:
        return FP32 * share
    return (FP32 + engine.width) * share + engine.width * model.largest


def waiting_buffers(model: Trained, engine: Engine) -> int:
    """Buffers that exist between two backward passes: ZeRO-3's bucket; under ZeRO-2 that of offloading."""
    if engine.stage == 3:
        return engine.width * engine.bucket
    return engine.width * model.largest if engine.stage == 2 and engine.offload_optimizer else 0


def _share(size: int, engine: Engine) -> int:
    return -(-size // engine.ranks)
