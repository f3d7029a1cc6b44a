"""Batches of pairs and the loss of a step."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaForSequenceClassification
from trl import RewardConfig

from llamita.data.rows import RATINGS, Comparison
from llamita.model.checkpoint import load_reward_model
from llamita.model.scoring import terminal_scores
from llamita.reward.loss import margin
from llamita.reward.pairs import Pair
from llamita.reward.trainer import PairCollator, pair_trainer
from llamita.training.arguments import training_arguments
from llamita.training.loop import run_trainer
from llamita.training.tracking import Tracker

from ..sampling.tiny import save_tiny_reward_model

NAN = math.nan


def make_pairs(count: int) -> list[Pair]:
    """Rows of 4 to 14 tokens, ending in EOS; some answers are labelled, some are not."""
    draw = torch.Generator().manual_seed(0)
    pairs = []
    for number in range(count):
        ids = [
            [1, *torch.randint(3, 300, (2 + (number + shift) % 11,), generator=draw).tolist(), 2]
            for shift in (0, 4)
        ]
        safe = [None, True, True, False][number % 4], [None, True, False, False][number % 4]
        pairs.append(Pair(Comparison([], "", "", RATINGS[number % 4], *safe), *ids))
    return pairs


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any) -> Path:
    return save_tiny_reward_model(tmp_path_factory.mktemp("reward") / "model", tokenizer)


def first_row(out: Path, folder: Path, tokenizer: Any, pairs: list[Pair], **section: Any) -> dict[str, float]:
    """What the tracker got for the first step."""
    model = load_reward_model(folder)
    arguments = training_arguments(
        RewardConfig, {"max_steps": 1, "learning_rate": 1e-3, **section}, out, 0, max_length=None
    )
    with Tracker(out, {}) as tracker:
        run_trainer(
            pair_trainer(model, tokenizer, pairs, arguments, "small", 0.5), tracker, "pairs", 1, "pairs"
        )
    return json.loads((out / "metrics.jsonl").read_text().splitlines()[0])


def test_a_batch_holds_the_chosen_answers_then_the_rejected_ones():
    names = ("chosen_ids", "rejected_ids", "margin", "chosen_safe", "rejected_safe")
    values = [([1, 5, 2], [1, 6, 7, 2], 1.0, 1.0, NAN), ([1, 8, 2], [1, 2], 0.0, 0.0, 0.0)]
    rows = [dict(zip(names, row, strict=True)) for row in values]
    batch = PairCollator(0)(rows)
    assert batch["input_ids"].tolist() == [[1, 5, 2, 0], [1, 8, 2, 0], [1, 6, 7, 2], [1, 2, 0, 0]]
    assert batch["margins"].tolist() == [1.0, 0.0]
    assert batch["safe"].nan_to_num(9).tolist() == [1.0, 0.0, 9.0, 0.0]


def test_training_reads_the_score_where_scoring_does(folder: Path):
    """transformers' own forward pass, on padded rows without a mask, against the rows one by one."""
    model = load_reward_model(folder).eval()
    rows = [pair.chosen_ids for pair in make_pairs(9)]
    batch = PairCollator(0)(
        [
            {"chosen_ids": row, "rejected_ids": row, "margin": 0.0, "chosen_safe": NAN, "rejected_safe": NAN}
            for row in rows
        ]
    )
    with torch.no_grad():
        together = model(input_ids=batch["input_ids"], use_cache=False).logits[: len(rows), 0]
        alone = [
            model.score(model.model(torch.tensor([row])).last_hidden_state[0, -1]).item() for row in rows
        ]
    assert together.tolist() == pytest.approx(alone, abs=1e-5)
    assert terminal_scores(model, rows, batch_size=4).tolist() == pytest.approx(alone, abs=1e-5)


@pytest.mark.parametrize(("size", "accumulation"), [(10, 1), (5, 2), (4, 3), (3, 4)])
def test_the_loss_is_the_mean_over_the_pairs_of_the_global_batch(
    tmp_path: Path, folder: Path, tokenizer: Any, size: int, accumulation: int
):
    """Ten pairs in one step, however they are cut, the last micro-batch being short for some."""
    pairs = make_pairs(10)
    model: LlamaForSequenceClassification = load_reward_model(folder).eval()
    chosen, rejected = (
        terminal_scores(model, [getattr(pair, name) for pair in pairs]).tolist()
        for name in ("chosen_ids", "rejected_ids")
    )
    ranking = sum(
        math.log1p(math.exp(-(c - r - margin(pair.comparison.rating, "small"))))
        for pair, c, r in zip(pairs, chosen, rejected, strict=True)
    )
    centring = sum((c + r) ** 2 for c, r in zip(chosen, rejected, strict=True))
    labels = [pair.comparison.chosen_safe for pair in pairs] + [
        pair.comparison.rejected_safe for pair in pairs
    ]
    safety = [
        math.log1p(math.exp(-score if safe else score))
        for safe, score in zip(labels, chosen + rejected, strict=True)
        if safe is not None
    ]
    expected = (ranking + 0.3 * centring) / 10 + 0.5 * sum(safety) / len(safety)
    centred = {"center_rewards_coefficient": 0.3}
    cut = {"per_device_train_batch_size": size, "gradient_accumulation_steps": accumulation} | centred
    row = first_row(tmp_path / "out", folder, tokenizer, pairs, **cut)
    assert row["loss"] == pytest.approx(expected, rel=1e-5)
    whole = first_row(tmp_path / "whole", folder, tokenizer, pairs, per_device_train_batch_size=10, **centred)
    assert row["grad_norm"] == pytest.approx(whole["grad_norm"], rel=1e-4)
