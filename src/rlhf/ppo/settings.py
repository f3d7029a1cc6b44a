"""Settings of the stage `ppo` (imports no torch)."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import Field, model_validator

from ...training.settings import PAPER_OPTIMIZER, LoraSettings
from ..settings import Count, NotNegative, Positive, RlhfSettings, Share

Below1 = Annotated[float, Field(ge=0, lt=1)]


class PpoSettings(RlhfSettings):
    """PPO (section 3.2.3). Defaults are the paper's for 7B; where it is silent, what the field settled on."""

    iterations: Count = 200
    """the paper: 200 to 400"""
    save_iterations: Count = 10
    """iterations between two checkpoints"""
    episodes: Count = 512
    """answers sampled an iteration, over all ranks"""
    mini_batch_size: Count = 64
    """answers a gradient step, over all ranks; each answer is used once"""
    micro_batch_size: Count | None = None
    """answers a forward pass on one rank; bounds memory, changes no result; default: the rank's mini-batch"""
    learning_rate: Positive = 1e-6
    """constant"""
    critic_learning_rate: Positive = 9e-6
    """constant, too"""
    critic_warmup_iterations: Annotated[int, Field(ge=0)] = 5
    """of `iterations`, the first in which the critic learns alone, without clipping"""
    kl_coef: NotNegative = 0.01
    """beta; the paper: 0.01 for 7B and 13B, 0.005 for 34B and 70B"""
    cliprange: Positive = 0.2
    """of the probability ratio; the paper's"""
    cliprange_value: Positive = 0.2
    """how far values may move before the loss turns pessimistic"""
    gamma: Share = 1.0
    """discount of later rewards; an answer is one episode, so none"""
    lam: Share = 0.95
    """of generalised advantage estimation: 0 trusts the critic, 1 the sampled rewards"""
    temperature: Positive = 1.0
    """of the sampled answers, and of every log-probability"""
    missing_eos_penalty: NotNegative = 1.0
    """what an answer cut at `max_new_tokens` loses, in standard deviations of the batch's rewards"""
    adam_beta1: Below1 = PAPER_OPTIMIZER["adam_beta1"]
    """of AdamW, for policy and critic, as are the next four"""
    adam_beta2: Below1 = PAPER_OPTIMIZER["adam_beta2"]
    adam_epsilon: Positive = PAPER_OPTIMIZER["adam_epsilon"]
    weight_decay: NotNegative = PAPER_OPTIMIZER["weight_decay"]
    max_grad_norm: Positive = PAPER_OPTIMIZER["max_grad_norm"]
    """a step's gradient is scaled down to this norm"""
    deepspeed: str | None = None
    """a file of ZeRO-0, 1 or 2, relative to this YAML; the stage then runs under the `deepspeed` launcher"""
    lora: LoraSettings | None = None
    """trains adapters of one frozen model that policy, critic, reference and reward models share"""

    required_inputs: ClassVar[frozenset[str]] = frozenset({"start", "helpfulness", "safety", "data"})
    no_effect: ClassVar[frozenset[str]] = frozenset({"micro_batch_size", "save_iterations"})
    resumes_with: ClassVar[frozenset[str]] = frozenset({"deepspeed"})

    @model_validator(mode="after")
    def _sizes_fit(self) -> PpoSettings:
        if self.episodes % self.mini_batch_size:
            raise ValueError(
                f"mini_batch_size {self.mini_batch_size} does not divide episodes {self.episodes}"
            )
        if self.mini_batch_size % (self.micro_batch_size or 1):
            raise ValueError(
                f"micro_batch_size {self.micro_batch_size} does not divide "
                f"mini_batch_size {self.mini_batch_size}"
            )
        return self

    @property
    def adapter(self) -> dict[str, Any] | None:
        """`lora` by peft's names."""
        return None if self.lora is None else self.lora.model_dump()

    @property
    def optimizer(self) -> dict[str, float]:
        """Of both models, see `Engine`."""
        names = ("adam_beta1", "adam_beta2", "adam_epsilon", "weight_decay", "max_grad_norm")
        return {name: getattr(self, name) for name in names}
