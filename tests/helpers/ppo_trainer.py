"""A PPO trainer of a tiny policy that is rewarded for one token."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from transformers import LlamaForCausalLM, LlamaForSequenceClassification

from llamita.data.rows import Prompt
from llamita.model.reward_models import RewardModels, Scores
from llamita.rlhf.ppo.critic import Critic
from llamita.rlhf.ppo.loading import EngineConfigs, Models, policy_sampler
from llamita.rlhf.ppo.settings import PpoSettings
from llamita.rlhf.ppo.trainer import PLAIN, PpoTrainer
from llamita.rlhf.prompts import EncodedPrompt
from llamita.sampling.engines import Samplers

from .rows import turn
from .tiny import ragged_prompts, tiny_model

REWARDED_TOKEN = 7
Ids = Sequence[Sequence[int]]


def share_of_the_rewarded_token(prompts: Ids, answers: Ids, _: object) -> Tensor:
    """Scores in (0, 1) that rise with the share of the rewarded token."""
    shares = [sum(token == REWARDED_TOKEN for token in answer) / (len(answer) + 1) for answer in answers]
    return 0.05 + 0.9 * torch.tensor(shares, dtype=torch.float64)


def always_safe(prompts: Ids, answers: Ids, _: object) -> Tensor:
    """The safety score of every answer is 0.9."""
    return torch.full((len(answers),), 0.9, dtype=torch.float64)


def tiny_critic() -> Critic:
    """Returns a critic with random weights."""
    model = tiny_model(seed=5)
    reward_model = LlamaForSequenceClassification(copy.deepcopy(model.config))
    reward_model.config.num_labels = 1
    reward_model.score = torch.nn.Linear(32, 1, bias=False)
    return Critic(reward_model)


def trainer(
    policy: LlamaForCausalLM | None = None,
    helpfulness: Scores = share_of_the_rewarded_token,
    *,
    configs: EngineConfigs = PLAIN,
    **settings: object,
) -> PpoTrainer:
    """Returns a trainer of `policy`, by default one with random weights, with changed settings."""
    chosen = {
        "prompts": [{"path": "unread", "format": "prompts"}],
        "max_new_tokens": 6,
        "seed": 1,
        "iterations": 20,
        "episodes": 64,
        "mini_batch_size": 16,
        "learning_rate": 3e-3,
        "critic_learning_rate": 3e-3,
        "critic_warmup_iterations": 2,
        "kl_coef": 0.02,
    }
    prompts = [EncodedPrompt(Prompt(turn("?"), is_safety=False), ids) for ids in ragged_prompts(20)]
    policy = policy or tiny_model(spread=0.05)
    models = Models(policy, tiny_critic(), copy.deepcopy(policy))
    checked = PpoSettings(**chosen | settings)
    samplers = Samplers(checked, dtype=checked.dtype, working=Path())
    return PpoTrainer(
        models,
        sampler=policy_sampler(policy, checked, samplers, start=Path(), configs=configs),
        reward_models=RewardModels(helpfulness, always_safe),
        prompts=prompts,
        settings=checked,
        configs=configs,
    )
