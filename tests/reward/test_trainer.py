"""Batches of pairs and the loss of a step."""

from __future__ import annotations

import json
import math
import statistics
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaForSequenceClassification, TrainerCallback
from trl import RewardConfig

from llamita.data.rows import RATINGS, Comparison
from llamita.model.checkpoint import load_reward_model
from llamita.model.scoring import terminal_scores
from llamita.reward import trainer
from llamita.reward.loss import margin
from llamita.reward.pairs import Pair
from llamita.reward.trainer import TOKENS_PER_PASS, PairCollator, answers_per_pass, pair_trainer
from llamita.training.arguments import training_arguments
from llamita.training.loop import run_trainer
from llamita.training.tracking import Tracker

from ..helpers.reward import as_pairs
from ..helpers.tiny import save_tiny_reward_model

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
        comparison = Comparison(
            [],
            "",
            "",
            rating=RATINGS[number % 4],
            chosen_safe=[None, True, True, False][number % 4],
            rejected_safe=[None, True, False, False][number % 4],
        )
        pairs.append(Pair(comparison, *ids))
    return pairs


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any) -> Path:
    return save_tiny_reward_model(tmp_path_factory.mktemp("reward") / "model", tokenizer)


def first_row(out: Path, folder: Path, tokenizer: Any, pairs: list[Pair], **section: Any) -> dict[str, float]:
    """The metrics that the tracker received for the first step."""
    model = load_reward_model(folder)
    arguments = training_arguments(
        RewardConfig, {"max_steps": 1, "learning_rate": 1e-3, **section}, out, seed=0, max_length=None
    )
    with Tracker(out, {}) as tracker:
        run_trainer(
            pair_trainer(model, tokenizer, as_pairs(pairs), arguments=arguments, safety_weight=0.5),
            tracker,
            items_per_row=1,
            unit="pairs",
        )
    return json.loads((out / "metrics.jsonl").read_text().splitlines()[0])


def test_a_batch_sorts_answers_by_length_and_restores_their_order():
    names = ("chosen_ids", "rejected_ids", "margin", "chosen_safe", "rejected_safe")
    values = [([1, 5, 2], [1, 6, 7, 2], 1.0, 1.0, NAN), ([1, 8, 9, 8, 2], [1, 2], 0.0, 0.0, 0.0)]
    rows = [dict(zip(names, row, strict=True)) for row in values]
    batch = PairCollator(0, 3)(rows)
    assert [ids.tolist() for ids in batch["passes"]] == [
        [[1, 2, 0, 0], [1, 5, 2, 0], [1, 6, 7, 2]],
        [[1, 8, 9, 8, 2]],
    ]
    assert batch["places"].tolist() == [1, 3, 2, 0]  # both chosen ones, both rejected ones
    assert batch["margins"].tolist() == [1.0, 0.0]
    assert batch["safe"].nan_to_num(9).tolist() == [1.0, 0.0, 9.0, 0.0]


def test_all_ranks_have_the_same_number_of_passes():
    """Whatever the lengths of their rows: under ZeRO-3 all ranks gather weights together in each pass."""
    pairs = [Pair(Comparison([], "", "", rating=None), [1] * length, [1] * length) for length in (50, 150)]
    assert answers_per_pass(as_pairs(pairs).lengths, torch.device("cpu")) == TOKENS_PER_PASS[1] // 100
    collate = PairCollator(0, 5)
    short, long = (
        {"chosen_ids": ids, "rejected_ids": ids, "margin": 0.0, "chosen_safe": NAN, "rejected_safe": NAN}
        for ids in ([1, 2], [1, *[5] * 99, 2])
    )
    assert len(collate([short] * 8)["passes"]) == len(collate([long] * 8)["passes"]) == 4


def test_a_step_has_pairs_of_all_lengths(tmp_path: Path, folder: Path, tokenizer: Any):
    """The share of the variance of lengths between steps, and the share of padding."""
    draw = torch.Generator().manual_seed(0)
    pairs = [
        Pair(Comparison([], "", "", rating=None), [1] * length, [1] * (length - 3))
        for length in torch.randint(5, 120, (1600,), generator=draw).tolist()
    ]
    section = {"per_device_train_batch_size": 16, "gradient_accumulation_steps": 2}
    arguments = training_arguments(RewardConfig, section, tmp_path, seed=0, max_length=None)
    pairwise = pair_trainer(
        load_reward_model(folder), tokenizer, as_pairs(pairs), arguments=arguments, safety_weight=0.0
    )
    pairwise.data_collator = PairCollator(0, 8)
    steps: list[list[int]] = []
    read = trained = 0
    for number, batch in enumerate(pairwise.get_train_dataloader()):
        if number % 2 == 0:
            steps.append([])
        for ids in batch["passes"]:
            steps[-1] += (ids != 0).sum(dim=1).tolist()
            read, trained = read + ids.numel(), trained + int((ids != 0).sum())
    lengths = [length for step in steps for length in step]
    assert len(steps) == 50
    means = [statistics.mean(step) for step in steps for _ in step]
    between = statistics.pvariance(means) / statistics.pvariance(lengths)
    assert between < 2 / 32  # of 32 pairs drawn at random: 1/32; sorted over many steps: nearly 1
    assert trained > 0.9 * read  # half of them, if padded to the longest of the micro-batch


def test_training_and_scoring_use_the_score_of_the_same_token(folder: Path):
    """The forward pass of transformers on padded rows without a mask equals that on single rows."""
    model = load_reward_model(folder).eval()
    rows = [pair.chosen_ids for pair in make_pairs(9)]
    batch = PairCollator(0, 18)(
        [
            {"chosen_ids": row, "rejected_ids": row, "margin": 0.0, "chosen_safe": NAN, "rejected_safe": NAN}
            for row in rows
        ]
    )
    with torch.no_grad():
        scores = model(input_ids=batch["passes"][0], use_cache=False).logits[:, 0]
        together = scores[batch["places"]][: len(rows)]
        alone = [
            model.score(model.model(torch.tensor([row])).last_hidden_state[0, -1]).item() for row in rows
        ]
    assert together.tolist() == pytest.approx(alone, abs=1e-5)
    assert terminal_scores(model, rows, batch_size=4).tolist() == pytest.approx(alone, abs=1e-5)


@pytest.mark.parametrize(("size", "accumulation"), [(10, 1), (5, 2), (4, 3), (3, 4)])
def test_the_loss_is_the_mean_over_the_pairs_of_the_global_batch(
    tmp_path: Path,
    folder: Path,
    tokenizer: Any,
    monkeypatch: pytest.MonkeyPatch,
    size: int,
    accumulation: int,
):
    """Ten pairs in one step, split into micro-batches in several ways, some with a shorter last one."""
    monkeypatch.setattr(trainer, "TOKENS_PER_PASS", (30, 30))  # three answers
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
    assert row["train/loss"] == pytest.approx(expected, rel=1e-5)
    whole = first_row(tmp_path / "whole", folder, tokenizer, pairs, per_device_train_batch_size=10, **centred)
    assert row["train/grad_norm"] == pytest.approx(whole["train/grad_norm"], rel=1e-4)


class Killed(Exception):
    pass


class KilledAt(TrainerCallback):
    def __init__(self, step: int) -> None:
        self._step = step

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == self._step:
            raise Killed


def test_a_killed_run_ends_like_an_uninterrupted_one(tmp_path: Path, folder: Path, tokenizer: Any):
    """Killed within an epoch; its steps have three sorted micro-batches."""
    section = {
        "max_steps": 5,
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 3,
        "save_steps": 1,
        "learning_rate": 1e-3,
    }

    def weights(out: Path, *callbacks: TrainerCallback) -> dict[str, torch.Tensor]:
        model = load_reward_model(folder)
        arguments = training_arguments(RewardConfig, section, out, seed=0, max_length=None)
        pairwise = pair_trainer(
            model, tokenizer, as_pairs(make_pairs(22)), arguments=arguments, safety_weight=0.5
        )
        for callback in callbacks:
            pairwise.add_callback(callback)
        with Tracker(out, {}) as tracker:
            run_trainer(pairwise, tracker, items_per_row=1, unit="pairs")
        return model.state_dict()

    whole = weights(tmp_path / "whole")
    with pytest.raises(Killed):
        weights(tmp_path / "killed", KilledAt(2))
    torch.testing.assert_close(weights(tmp_path / "killed"), whole, atol=0, rtol=0)
