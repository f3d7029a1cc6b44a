"""The stage passes every setting on: one step over all pairs equals a recomputation pair by pair."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from llamita.jsonl import read_rows
from llamita.reward import stage
from llamita.reward.pairs import Pair

from ..helpers.material import SAFETY, write_data
from ..helpers.plain_ppo import adam
from ..helpers.reward import read_pairs, settings
from ..helpers.tiny import save_tiny_model
from ..helpers.two_ranks import on_two_ranks

TABLE_27 = {
    "significantly_better": 3.0,
    "better": 2.0,
    "slightly_better": 1.0,
    "negligibly_better": 0.0,
}
TRAINER = {
    "max_steps": 1,
    "per_device_train_batch_size": 128,
    "learning_rate": 4e-3,
    "warmup_steps": 0,
    "logging_steps": 1,
    "center_rewards_coefficient": 0.02,
    "adam_beta1": 0.8,
    "adam_beta2": 0.9,
    "adam_epsilon": 1e-3,
    "weight_decay": 0.3,
    "max_grad_norm": 0.5,
}
SETTINGS = SAFETY | {
    "seed": 5,
    "margin": "large",
    "mix_share": 0.3,
    "safety_loss_weight": 0.7,
    "trainer": TRAINER,
}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("inputs")
    model = save_tiny_model(root / "sft" / "model", tokenizer, spread=0.05).parent
    return {"model": model, "data": write_data(root / "data")}


def train(inputs: dict[str, Path], out: Path, **trainer: int) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The first logged row, and the weights."""
    stage.run(settings(SETTINGS, trainer=TRAINER | trainer), inputs, out)
    weights = AutoModelForSequenceClassification.from_pretrained(out / "model").state_dict()
    return read_rows(out / "metrics.jsonl")[0], weights


def plain_model(folder: Path) -> Any:
    """The chat model with a head drawn from N(0, 1 / (hidden size + 1)) instead of its output layer."""
    model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=1)
    model.model.load_state_dict(AutoModelForCausalLM.from_pretrained(folder).model.state_dict())
    drawn = torch.randn(1, 32, generator=torch.Generator().manual_seed(5))
    model.score.weight.data = drawn / 33**0.5
    return model


def plain_loss(model: Any, pairs: Sequence[Pair]) -> Tensor:
    ranking, centring, safety = [], [], []
    for pair in pairs:
        chosen, rejected = (
            model.score(model.model(torch.tensor([ids])).last_hidden_state[0, -1]).squeeze()
            for ids in (pair.chosen_ids, pair.rejected_ids)
        )
        one = pair.comparison
        ranking.append(-F.logsigmoid(chosen - rejected - TABLE_27[one.rating]))
        centring.append((chosen + rejected) ** 2)
        for score, safe in ((chosen, one.chosen_safe), (rejected, one.rejected_safe)):
            safety.append(-F.logsigmoid(score if safe else -score))
    means = (torch.stack(terms).mean() for terms in (ranking, centring, safety))
    return sum(weight * mean for weight, mean in zip((1.0, 0.02, 0.7), means, strict=True))


def test_a_step_equals_plain_python(inputs: dict[str, Path], tmp_path: Path) -> None:
    row, weights = train(inputs, tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(inputs["model"] / "model")
    pairs, _, counts = read_pairs(settings(SETTINGS), inputs["data"], tokenizer)
    assert (len(pairs), counts["mixed_pairs"]) == (91, 27), "three in ten"
    assert {pair.comparison.rating for pair in pairs} == TABLE_27.keys()
    model = plain_model(inputs["model"] / "model")
    loss = plain_loss(model, pairs)
    assert row["train/loss"] == pytest.approx(loss.item(), rel=1e-5)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), TRAINER["max_grad_norm"])
    adam(model, TRAINER["learning_rate"], TRAINER).step()
    for name, expected in model.state_dict().items():
        torch.testing.assert_close(weights[name], expected, atol=2e-5, rtol=1e-4, msg=name)


def test_two_ranks_train_as_one(inputs: dict[str, Path], tmp_path: Path) -> None:
    cut = {"per_device_train_batch_size": 8}
    row, weights = train(inputs, tmp_path / "alone", **cut, gradient_accumulation_steps=2)
    found = on_two_ranks(lambda: train(inputs, tmp_path / "two", **cut), tmp_path)[0]
    assert found[0]["train/loss"] == pytest.approx(row["train/loss"], rel=1e-5)
    for name, expected in weights.items():
        torch.testing.assert_close(found[1][name], expected, atol=2e-5, rtol=1e-4, msg=name)
