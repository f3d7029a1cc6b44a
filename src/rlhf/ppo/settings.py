"""Settings of the stage `ppo` (imports no torch)."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import Field, model_validator

from ...training.settings import PAPER_OPTIMIZER, LoraSettings
from ..settings import Count, NotNegative, Positive, RlhfSettings, Share

Below1 = Annotated[float, Field(ge=0, lt=1)]


class PpoSettings(RlhfSettings):
    """PPO (section 3.2.3). Defaults are the paper's for 7B, or common practice where the paper gives none."""

    iterations: Count = 200
    """number of PPO iterations; the paper: 200 to 400"""
    save_iterations: Count = 10
    """number of iterations between checkpoints"""
    held_out: Annotated[int, Field(ge=2)] | None = None
    """number of prompts to hold out from training for early stopping, ordinary and adversarial ones in the
    proportion of the pool; the best evaluated version is published; null: no early stopping, the last version
    is published"""
    eval_iterations: Count = 10
    """number of iterations between evaluations on the held-out prompts"""
    patience: Count = 3
    """number of successive evaluations without an improvement (mean paired difference to the best version
    above its standard error) after which training stops"""
    kl_limit: Positive | None = None
    """KL to the start model on the held-out prompts, in nats per answer, above which training stops and a
    version is not published; null: no limit"""
    episodes: Count = 512
    """number of answers sampled per iteration, over all ranks (the paper's batch size)"""
    mini_batch_size: Count = 64
    """number of answers per optimizer step, over all ranks; a divisor of `episodes` and a multiple of the
    number of ranks; each answer is used once per iteration"""
    micro_batch_size: Count | None = None
    """maximum number of answers per forward pass on one rank; limits memory, changes no result; default: the
    rank's whole mini-batch"""
    max_tokens_per_micro_batch: Count | None = None
    """maximum number of tokens per forward pass on one rank, of prompts, answers and padding; limits memory,
    changes no result; at least the longest prompt and `max_new_tokens`; default: no limit but
    `micro_batch_size`"""
    gradient_checkpointing: bool = False
    """whether policy and critic recompute their activations in the backward pass; limits memory, changes no
    result"""
    learning_rate: Positive = 1e-6
    """learning rate of the policy, constant"""
    critic_learning_rate: Positive = 9e-6
    """learning rate of the critic, constant"""
    critic_warmup_iterations: Annotated[int, Field(ge=0)] = 5
    """number of initial iterations (part of `iterations`) that train only the critic, without clipping"""
    kl_coef: NotNegative = 0.01
    """beta, the coefficient of the KL penalty; the paper: 0.01 for 7B and 13B, 0.005 for 34B and 70B"""
    cliprange: Positive = 0.2
    """clip range of the probability ratio in the policy loss; the paper: 0.2"""
    cliprange_value: Positive = 0.2
    """clip range of the value loss"""
    gamma: Share = 1.0
    """discount factor of later rewards; 1: no discount"""
    lam: Share = 0.95
    """lambda of generalised advantage estimation; 0: advantages rely on the critic, 1: on the rewards"""
    temperature: Positive = 1.0
    """sampling temperature; every log-probability uses it too"""
    missing_eos_penalty: NotNegative = 1.0
    """penalty subtracted from the reward of an answer truncated at `max_new_tokens`, in standard deviations
    of the batch's rewards"""
    adam_beta1: Below1 = PAPER_OPTIMIZER["adam_beta1"]
    """beta1 of AdamW, for policy and critic"""
    adam_beta2: Below1 = PAPER_OPTIMIZER["adam_beta2"]
    """beta2 of AdamW, for policy and critic"""
    adam_epsilon: Positive = PAPER_OPTIMIZER["adam_epsilon"]
    """epsilon of AdamW, for policy and critic"""
    weight_decay: NotNegative = PAPER_OPTIMIZER["weight_decay"]
    """weight decay of AdamW, for policy and critic; vectors (norms, biases) are not decayed"""
    max_grad_norm: Positive = PAPER_OPTIMIZER["max_grad_norm"]
    """gradient norm to clip to, for policy and critic"""
    deepspeed: str | None = None
    """path of the policy's DeepSpeed file, relative to this YAML; the stage then runs under the `deepspeed`
    launcher. With `lora` and ZeRO-3 the base model is partitioned, and the adapters are trained by ZeRO-2"""
    critic_deepspeed: str | None = None
    """path of the critic's DeepSpeed file, relative to this YAML; default: that of the policy"""
    lora: LoraSettings | None = None
    """LoRA settings: trains adapters on one frozen base model, shared by policy, critic, reference and all
    reward models"""

    required_inputs: ClassVar[frozenset[str]] = frozenset({"start", "helpfulness", "safety", "data"})
    optional_inputs: ClassVar[frozenset[str]] = frozenset({"judge"})
    no_effect: ClassVar[frozenset[str]] = frozenset(
        {"micro_batch_size", "max_tokens_per_micro_batch", "gradient_checkpointing", "save_iterations"}
    )

    resumes_with: ClassVar[frozenset[str]] = frozenset({"critic_deepspeed"})
    deepspeed_files: ClassVar[tuple[str, ...]] = ("deepspeed", "critic_deepspeed")

    @model_validator(mode="after")
    def _both_have_files(self) -> PpoSettings:
        if self.critic_deepspeed is not None and self.deepspeed is None:
            raise ValueError("critic_deepspeed: the policy has no DeepSpeed file; set `deepspeed`, too")
        return self

    @model_validator(mode="after")
    def _sizes_fit(self) -> PpoSettings:
        if self.episodes % self.mini_batch_size:
            raise ValueError(
                f"mini_batch_size {self.mini_batch_size} does not divide episodes {self.episodes}; "
                "choose a divisor"
            )
        longest = self.max_new_tokens + (self.max_prompt_length or 1)
        if self.max_tokens_per_micro_batch is not None and self.max_tokens_per_micro_batch < longest:
            raise ValueError(
                f"max_tokens_per_micro_batch {self.max_tokens_per_micro_batch} is less than the {longest} of "
                "max_prompt_length and max_new_tokens; choose a higher one"
            )
        if self.kl_limit is not None and self.held_out is None:
            raise ValueError(
                f"kl_limit {self.kl_limit} needs held_out, the prompts on which the KL is measured; set both"
            )
        return self

    def problem_with_ranks(self, ranks: int) -> str | None:
        """See the base class: the ranks share each mini-batch evenly."""
        if self.mini_batch_size % ranks:
            return (
                f"mini_batch_size {self.mini_batch_size} cannot be split over {ranks} ranks; "
                f"choose a multiple of {ranks}"
            )
        return None

    @property
    def adapter(self) -> dict[str, Any] | None:
        """The LoRA settings by peft's names; None without `lora`."""
        return None if self.lora is None else self.lora.model_dump(exclude={"merge"})

    @property
    def optimizer(self) -> dict[str, float]:
        """Optimizer settings of both models, for `Engine`."""
        names = ("adam_beta1", "adam_beta2", "adam_epsilon", "weight_decay", "max_grad_norm")
        return {name: getattr(self, name) for name in names}
