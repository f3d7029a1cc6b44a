"""What the stage hands to its functions: a PPO and a round of rejection sampling, recomputed by other code.

Every setting is off its default, the two scorers disagree, and prompts are of both kinds.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from llamita.rlhf import context
from llamita.rlhf.context import Context
from llamita.rlhf.improvement import improve
from llamita.training.steps import read_rows
from llamita.training.tracking import Tracker

from ..two_ranks import on_two_ranks
from .plain_ppo import Ids, PlainPpo
from .test_stage import make_inputs, settings

PPO = {
    "iterations": 4,
    "episodes": 12,
    "mini_batch_size": 6,
    "micro_batch_size": 3,
    "learning_rate": 2e-3,
    "critic_learning_rate": 7e-3,
    "critic_warmup_iterations": 2,
    "kl_coefficient": 0.3,
    "clip_threshold": 0.05,
    "value_clip_threshold": 0.03,
    "gamma": 0.8,
    "gae_lambda": 0.7,
    "temperature": 0.6,
    "missing_eos_penalty": 0.4,
}
TRAINER = {
    "max_steps": 1,
    "adam_beta1": 0.8,
    "adam_beta2": 0.9,
    "adam_epsilon": 1e-3,
    "weight_decay": 0.3,
    "max_grad_norm": 0.5,
}
SETTINGS: dict[str, Any] = {
    "seed": 5,
    "rounds": [{"name": "v1", "prompts": 5, "samples_per_prompt": 3, "temperature": 0.7, "ppo": True}],
    "ppo": PPO,
    "max_new_tokens": 6,
    "safety_threshold": 0.4,
    "trainer": TRAINER,
}


def one_safety(prompt: Ids, answer: Ids) -> float:
    return (1 + (sum(prompt) + 7 * sum(answer)) % 89) / 91


def one_helpfulness(prompt: Ids, answer: Ids) -> float:
    return (1 + (3 * len(prompt) + 11 * sum(answer)) % 79) / 81


def scorer(one: Callable[[Ids, Ids], float]) -> Any:
    def scores(prompts: Sequence[Ids], answers: Sequence[Ids], label: str | None = None) -> Tensor:
        rows = zip(prompts, answers, strict=True)
        return torch.tensor([one(list(prompt), list(answer)) for prompt, answer in rows], dtype=torch.float64)

    return scores


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any) -> dict[str, Path]:
    return make_inputs(tmp_path_factory.mktemp("inputs"), tokenizer)


def prepared(inputs: dict[str, Path], **changes: Any) -> Context:
    whole = context.prepare(settings(**SETTINGS | changes), inputs)
    return dataclasses.replace(whole, safety=scorer(one_safety), helpfulness=scorer(one_helpfulness))


def prompts_of(inputs: dict[str, Path]) -> list[tuple[Ids, bool]]:
    tokenizer = AutoTokenizer.from_pretrained(inputs["sft"] / "model")
    return [
        (tokenizer.apply_chat_template(row["messages"], return_dict=False), row["is_safety"])
        for row in map(json.loads, (inputs["data"] / "prompts.jsonl").read_text().splitlines())
    ]


def run_ppo(inputs: dict[str, Path], out: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    with Tracker(out, {}) as tracker:
        ends = improve(prepared(inputs), inputs["sft"] / "model", 0, tracker, out)
    return ends, AutoModelForCausalLM.from_pretrained(out / "model").state_dict()


@pytest.fixture(scope="module")
def alone(
    inputs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    return run_ppo(inputs, tmp_path_factory.mktemp("alone"))


def test_ppo_is_what_plain_python_makes_of_the_settings(
    inputs: dict[str, Path], alone: tuple[dict[str, Any], dict[str, Tensor]]
) -> None:
    policy, reference = (AutoModelForCausalLM.from_pretrained(inputs["sft"] / "model") for _ in range(2))
    plain = PlainPpo(
        policy=policy,
        reference=reference,
        critic=AutoModelForSequenceClassification.from_pretrained(inputs["helpfulness"]),
        prompts=prompts_of(inputs),
        safety=one_safety,
        helpfulness=one_helpfulness,
        ppo=PPO,
        trainer=TRAINER,
        max_new_tokens=SETTINGS["max_new_tokens"],
        safety_threshold=SETTINGS["safety_threshold"],
        seed="5/v1/ppo",
    )
    first, *_, last = plain.run()
    ends, weights = alone
    for found, expected in ((ends["first"], first), (ends["last"], last)):
        assert found["score"] == pytest.approx(expected["score"], rel=1e-6)
        assert found["safety_score"] == pytest.approx(expected["safety"], rel=1e-6)
        assert found["helpfulness_score"] == pytest.approx(expected["helpfulness"], rel=1e-6)
        assert found["value_loss"] == pytest.approx(expected["value_loss"], rel=1e-4)
    assert ends["last"]["policy_loss"] == pytest.approx(last["policy_loss"], rel=1e-3, abs=1e-6)
    for name, expected in policy.state_dict().items():
        torch.testing.assert_close(weights[name], expected, atol=2e-5, rtol=1e-4, msg=name)


def test_ppo_on_two_ranks_is_ppo_on_one(
    inputs: dict[str, Path], alone: tuple[dict[str, Any], dict[str, Tensor]], tmp_path: Path
) -> None:
    (ends, weights), _ = on_two_ranks(lambda: run_ppo(inputs, tmp_path), tmp_path)
    for name, expected in alone[1].items():
        torch.testing.assert_close(weights[name], expected, atol=2e-5, rtol=1e-4, msg=name)
    for end, expected in alone[0].items():
        for name, value in expected.items():
            if "second" not in name and "deviation" not in name:
                assert ends[end][name] == pytest.approx(value, rel=1e-3, abs=1e-5), name
