"""A second implementation of PPO (section 3.2.3), in plain Python and row by row, as a reference for tests.

It does not pad, batch or distribute, and imports nothing from `llamita.rlhf`: if the real code ignores a
setting, the two differ.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from llamita.sampling.draws import uniforms
from llamita.training.permutation import Permutation

Ids = list[int]
Score = Callable[[Ids, Ids], float]  # (prompt, answer) -> score in (0, 1)


@dataclass
class Episode:
    """An answer with its scores; the lists have one entry for each token of the answer."""

    prompt: Ids
    answer: Ids
    safety: float
    helpfulness: float
    score: float
    old_logprobs: list[float] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)
    old_values: list[float] = field(default_factory=list)
    advantages: list[float] = field(default_factory=list)
    returns: list[float] = field(default_factory=list)


@dataclass
class PlainPpo:
    """`ppo` has the keys of the YAML; `prompts` are pairs of token ids and whether they are adversarial."""

    policy: Any
    reference: Any
    critic: Any
    prompts: Sequence[tuple[Ids, bool]]
    safety: Score
    helpfulness: Score
    ppo: dict[str, Any]
    seed: str

    def __post_init__(self) -> None:
        self.scale: tuple[float, float] | None = None
        self.eos, self.pad = self.policy.config.eos_token_id, self.policy.config.pad_token_id
        self.optimizers = {
            "policy": adam(self.policy, self.ppo["learning_rate"], self.ppo),
            "critic": adam(self.critic, self.ppo["critic_learning_rate"], self.ppo),
        }

    def run(self) -> list[dict[str, float]]:
        return [self.iterate(number) for number in range(1, self.ppo["iterations"] + 1)]

    def iterate(self, number: int) -> dict[str, float]:
        episodes = self.sample(number)
        self.reward(episodes)
        self.estimate_advantages(episodes)
        order = random.Random(f"{self.seed}/mini_batches/{number}").sample(
            range(len(episodes)), len(episodes)
        )
        size = self.ppo["mini_batch_size"]
        metrics = {"policy_loss": 0.0, "value_loss": 0.0}
        minis = [order[start : start + size] for start in range(0, len(order), size)]
        for mini in minis:
            rows = [episodes[place] for place in mini]
            tokens = sum(len(row.answer) for row in rows)
            if number > self.ppo["critic_warmup_iterations"]:
                loss = sum(map(self.policy_loss, rows)) / tokens
                metrics["policy_loss"] += loss.item() / len(minis)
                self.step("policy", loss)
            loss = sum(self.value_loss(row, number) for row in rows) / tokens
            metrics["value_loss"] += loss.item() / len(minis)
            self.step("critic", loss)
        for name in ("score", "safety", "helpfulness"):
            metrics[name] = sum(getattr(row, name) for row in episodes) / len(episodes)
        return metrics

    # ------------------------------------------------------------------------------------ answers

    def sample(self, number: int) -> list[Episode]:
        count, pool = self.ppo["episodes"], len(self.prompts)
        episodes = []
        for place in range((number - 1) * count, number * count):
            epoch = Permutation(pool, f"{self.seed}/epoch/{place // pool}")
            prompt, is_safety = self.prompts[epoch[place % pool]]
            answer = plain_answer(
                self.policy,
                prompt,
                self.ppo["max_new_tokens"],
                self.ppo["temperature"],
                uniforms(f"{self.seed}/rollout", [(place, 0)], self.ppo["max_new_tokens"])[0].tolist(),
            )
            content = answer[:-1] if answer[-1] == self.eos else answer
            safety, helpfulness = self.safety(prompt, content), self.helpfulness(prompt, content)
            score = safety if is_safety or safety < self.ppo["safety_threshold"] else helpfulness
            episodes.append(Episode(prompt, answer, safety, helpfulness, score))
        return episodes

    @torch.no_grad()
    def reward(self, episodes: list[Episode]) -> None:
        logits = [math.log(row.score / (1 - row.score)) for row in episodes]
        if self.scale is None:  # from the first batch; the critic uses it in all iterations
            self.scale = sum(logits) / len(logits), deviation(logits)
        for row, whitened in zip(episodes, whiten(logits), strict=True):
            if row.answer[-1] != self.eos:
                whitened -= self.ppo["missing_eos_penalty"]
            row.old_logprobs = self.logprobs(self.policy, row).tolist()
            reference = self.logprobs(self.reference, row).tolist()
            row.rewards = [
                -self.ppo["kl_coef"] * (new - old)
                for new, old in zip(row.old_logprobs, reference, strict=True)
            ]
            row.rewards[-1] += whitened

    @torch.no_grad()
    def estimate_advantages(self, episodes: list[Episode]) -> None:
        gamma, decay = self.ppo["gamma"], self.ppo["lam"]
        for row in episodes:
            row.old_values = self.values(row).tolist()
            next_value = next_advantage = 0.0
            for reward, value in zip(reversed(row.rewards), reversed(row.old_values), strict=True):
                next_advantage = reward + gamma * next_value - value + gamma * decay * next_advantage
                next_value = value
                row.advantages.insert(0, next_advantage)
                row.returns.insert(0, next_advantage + value)
        whitened = iter(whiten([value for row in episodes for value in row.advantages]))
        for row in episodes:
            row.advantages = [next(whitened) for _ in row.advantages]

    # ------------------------------------------------------------------------------------- losses

    def policy_loss(self, row: Episode) -> Tensor:
        clip, loss = self.ppo["cliprange"], torch.zeros(())
        for new, old, advantage in zip(
            self.logprobs(self.policy, row), row.old_logprobs, row.advantages, strict=True
        ):
            ratio = (new - old).exp()
            clipped = ratio.clamp(1 - clip, 1 + clip)
            loss = loss - torch.minimum(ratio * advantage, clipped * advantage)
        return loss

    def value_loss(self, row: Episode, number: int) -> Tensor:
        clip, loss = self.ppo["cliprange_value"], torch.zeros(())
        for new, old, target in zip(self.values(row), row.old_values, row.returns, strict=True):
            error = (new - target) ** 2
            if number > self.ppo["critic_warmup_iterations"]:
                near = old + (new - old).clamp(-clip, clip)
                error = torch.maximum(error, (near - target) ** 2)
            loss = loss + error / 2
        return loss

    def step(self, name: str, loss: Tensor) -> None:
        model, optimizer = getattr(self, name), self.optimizers[name]
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), self.ppo["max_grad_norm"])
        optimizer.step()

    # ------------------------------------------------------------------------------------- models

    def logprobs(self, model: Any, row: Episode) -> Tensor:
        """Log-probability of each answer token, `[answer]`, at the temperature; the pad token is excluded."""
        logits = model(torch.tensor([row.prompt + row.answer])).logits[0]
        return torch.stack(
            [
                plain_distribution(logits[len(row.prompt) - 1 + place], self.ppo["temperature"], self.pad)[
                    token
                ]
                for place, token in enumerate(row.answer)
            ]
        )

    def values(self, row: Episode) -> Tensor:
        """Value of the state before each answer token, `[answer]`."""
        hidden = self.critic.base_model(torch.tensor([row.prompt + row.answer])).last_hidden_state[0]
        start = len(row.prompt) - 1
        mean, spread = self.scale
        return (self.critic.score(hidden)[start : start + len(row.answer), 0] - mean) / spread


def adam(model: Any, rate: float, settings: dict[str, float]) -> torch.optim.AdamW:
    """AdamW with weight decay on matrices only; `settings` has the names of `TrainingArguments`."""
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    vectors = [p for p in model.parameters() if p.ndim < 2]
    return torch.optim.AdamW(
        [
            {"params": matrices, "weight_decay": settings["weight_decay"]},
            {"params": vectors, "weight_decay": 0.0},
        ],
        lr=rate,
        betas=(settings["adam_beta1"], settings["adam_beta2"]),
        eps=settings["adam_epsilon"],
    )


def deviation(values: list[float]) -> float:
    """Population standard deviation."""
    mean = sum(values) / len(values)
    return math.sqrt(sum((value - mean) ** 2 for value in values) / len(values))


def whiten(values: list[float]) -> list[float]:
    """Shifts values to mean 0 and scales them to standard deviation 1."""
    mean, spread = sum(values) / len(values), deviation(values)
    return [(value - mean) / spread for value in values]


def plain_distribution(logits: Tensor, temperature: float, pad: int) -> Tensor:
    """Log-probabilities of the next token; that of the pad token is -inf."""
    scaled = logits / temperature
    return scaled.index_fill(0, torch.tensor([pad]), float("-inf")).log_softmax(0)


@torch.no_grad()
def plain_answer(model: Any, prompt: Ids, steps: int, temperature: float, numbers: Sequence[float]) -> Ids:
    """Samples an answer: each number in [0, 1) selects a token by the cumulative distribution."""
    answer: Ids = []
    for number in numbers[:steps]:
        logits = model(torch.tensor([prompt + answer])).logits[0, -1]
        shares = plain_distribution(logits, temperature, model.config.pad_token_id).double().exp().tolist()
        sums = list(itertools.accumulate(shares))
        token = next(place for place, total in enumerate(sums) if total > number * sums[-1])
        answer.append(token)
        if token == model.config.eos_token_id:
            break
    return answer
