"""What the YAML of the rlhf stage says (imports no torch)."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import Field, model_validator

from ..data.settings import PromptSource
from ..settings import Precision, Settings, Source
from ..training.settings import FineTunedSettings

Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]


class PpoSettings(Settings):
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
    kl_coefficient: NotNegative = 0.01
    """beta; the paper: 0.01 for 7B and 13B, 0.005 for 34B and 70B"""
    clip_threshold: Positive = 0.2
    """of the probability ratio; the paper's"""
    value_clip_threshold: Positive = 0.2
    """how far values may move before the loss turns pessimistic"""
    gamma: Share = 1.0
    """discount of later rewards; an answer is one episode, so none"""
    gae_lambda: Share = 0.95
    """of generalised advantage estimation: 0 trusts the critic, 1 the sampled rewards"""
    temperature: Positive = 1.0
    """of the sampled answers, and of every log-probability"""
    missing_eos_penalty: NotNegative = 1.0
    """what an answer cut at `max_new_tokens` loses, in standard deviations of the batch's rewards"""

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


class RoundSettings(Settings):
    """One version of the model: rejection sampling from the newest model, then PPO where asked for."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$")]
    """of the version and of its folder"""
    prompts: Count
    """prompts to sample answers for; each round takes others as long as there are any"""
    samples_per_prompt: Count = 10
    """K"""
    temperature: Positive = 1.2
    """the paper: 1.2 to 1.3 for 10 to 100 samples of an RLHF model"""
    ppo: bool = False
    """PPO on top of the rejection-sampled checkpoint"""


class RlhfSettings(FineTunedSettings):
    """Rounds of rejection sampling and PPO (section 3.2.3)."""

    prompts: Annotated[list[PromptSource], Field(min_length=1)]
    """to sample answers for, in rejection sampling and PPO"""
    dialogues: Annotated[list[Source], Field(min_length=1)]
    """what the base model is fine-tuned on in every round, beside the best samples: the rows of SFT"""
    ghost_attention: list[Source] = []
    """dialogues with an instruction (section 3.3), likewise; below the input `gatt`, or else `data`"""
    rounds: Annotated[list[RoundSettings], Field(min_length=1)]
    """the versions, oldest first"""
    ppo: PpoSettings = PpoSettings()
    """of every round with PPO; `trainer` sets AdamW's betas, epsilon, weight decay and clipping for it too"""
    max_prompt_length: Count | None = None
    """tokens; longer prompts are left out and counted, as are those that leave an answer no room"""
    max_new_tokens: Count
    """length limit of an answer, EOS included"""
    selection_repeats: Count = 1
    """how often each best sample stands among the rows, against once for a demonstration"""
    safety_threshold: Share = 0.15
    """below this safety score an answer is rewarded for safety alone"""
    sampling_batch_size: Count = 512
    """answers sampled side by side"""
    dtype: Precision = "float32"
    """precision that answers are sampled and scored in, and of PPO's passes if no DeepSpeed file decides it;
    trained weights stay float32"""

    required_inputs: ClassVar[frozenset[str]] = frozenset({"base", "sft", "helpfulness", "safety", "data"})
    optional_inputs: ClassVar[frozenset[str]] = frozenset({"gatt"})
    no_effect: ClassVar[frozenset[str]] = frozenset(
        {"sampling_batch_size", "ppo.micro_batch_size", "ppo.save_iterations"}
    )

    @model_validator(mode="after")
    def _rounds_fit(self) -> RlhfSettings:
        names = [entry.name for entry in self.rounds]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"rounds: the name {name!r} stands twice")
        steps: Any = self.trainer.get("max_steps")
        if not isinstance(steps, int) or steps < 1:
            raise ValueError(
                "trainer: max_steps is missing; every round fine-tunes for the same number of steps (3.2.3)"
            )
        return self
