"""What the reward models hold, idle and while they score answers."""

from __future__ import annotations

from dataclasses import dataclass

from ..rlhf.settings import FrozenModels
from ..training.settings import LoraSettings
from . import passes
from .engine import BF16, FP32
from .frozen import Frozen, idle, used
from .lora import adapter
from .moments import Parts
from .shape import Shape


@dataclass(frozen=True)
class Scorers:
    """The reward models of a stage, all of one shape; with `lora` they are adapters of one base model.

    Attributes:
        number: of models.
        bf16: whether they compute in bf16.
        placement: of the models or of the base model; adapters are whole on each GPU.
    """

    number: int
    shape: Shape
    bf16: bool
    placement: FrozenModels

    def held(self, lora: LoraSettings | None, ranks: int) -> tuple[Parts, Parts]:
        """Weights that no pass uses, on the GPU and in the host's memory: `frozen`; with `lora` `adapters`.

        With `lora` without the base model, which PPO's other models share.
        """
        if lora is None:
            return idle([Frozen(self.shape, self.bf16)] * self.number, self.placement, ranks)
        return {"adapters": self.number * FP32 * sum(adapter(self.shape, lora))}, {}

    def used(self, lora: LoraSettings | None, ranks: int, longest: int) -> Parts:
        """What exists besides while one of them scores answers.

        `longest`: tokens of the longest prompt with its answer. With only matrices in bf16, hidden states are
        in fp32.
        """
        small_too = self.bf16 and (lora is not None or self.placement == "sharded")
        hidden, inner = BF16 if small_too else FP32, BF16 if self.bf16 else FP32
        tokens = max(longest, passes.SCORED_AT_ONCE)
        shape = self.shape
        parts = {
            "activations": tokens * (4 * hidden * shape.hidden_size + 3 * inner * shape.intermediate_size)
        }
        return parts if lora else parts | used(Frozen(shape, self.bf16), self.placement, ranks)
