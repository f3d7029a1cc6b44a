"""Packed rows: their content, and that a Llama computes the same on them as on single dialogues."""

from __future__ import annotations

import random
from itertools import pairwise

import numpy as np
import pytest
import torch

from llamita.chat_format.encoding import Encoded
from llamita.chat_format.packing import PackedCollator, best_fit, plan_rows

from ..helpers.packed import pack
from ..helpers.tiny import tiny_model

PAD = 0


def encoded(sizes: list[int], seed: int = 0) -> list[Encoded]:
    rng = random.Random(seed)
    dialogues = []
    for size in sizes:
        ids = [rng.randrange(3, 50) for _ in range(size)]
        dialogues.append(Encoded(ids, [-100] + [id if rng.random() < 0.6 else -100 for id in ids[1:]]))
    return dialogues


def segments(row: dict) -> list[list[int]]:
    """The token ids of a row, split where positions restart."""
    starts = [*np.flatnonzero(row["position_ids"] == 0), len(row["position_ids"])]
    return [row["input_ids"][a:b].tolist() for a, b in pairwise(starts)]


def test_every_dialogue_is_complete_in_one_row() -> None:
    dialogues = encoded(random.Random(1).choices(range(1, 33), k=200))
    rows = pack(dialogues, 32, PAD, seed=0)
    found = sorted(ids for row in rows for ids in segments(row) if set(ids) != {PAD})
    assert found == sorted(one.input_ids for one in dialogues)
    for row in rows:
        assert all(values.shape == (32,) for values in row.values())
        pads = row["input_ids"] == PAD
        assert (row["labels"][pads] == -100).all()
        assert row["position_ids"][pads].tolist() == list(range(pads.sum()))  # a segment of their own
        assert (row["labels"][row["position_ids"] == 0] == -100).all()
    trained = sum(label != -100 for one in dialogues for label in one.labels)
    assert sum((row["labels"] != -100).sum() for row in rows) == trained


def test_too_long_dialogues_are_dropped() -> None:
    rows = pack(encoded([5, 9, 8, 12]), 8, PAD, seed=0)
    assert sorted(len(segments(row)) for row in rows) == [1, 2]


def test_best_fit_by_hand() -> None:
    # 7 and 6 open bins with 3 and 4 left; 4 fits the second exactly, 3 the first; 2 opens a third
    assert best_fit([7, 6, 4, 3, 2], 10) == [[0, 3], [1, 2], [4]]
    assert best_fit([11, 10], 10) == [[1]]
    assert best_fit([], 10) == []


def test_best_fit_against_a_plain_loop() -> None:
    sizes = random.Random(3).choices(range(1, 41), k=500)
    left: list[int] = []
    for size in sizes:
        fitting = [room for room in left if room >= size]
        left.append((min(fitting) if fitting else 64) - size)
        if fitting:
            left.remove(min(fitting))
    bins = best_fit(sizes, 64)
    assert sorted(64 - sum(sizes[i] for i in bin) for bin in bins) == sorted(left)
    assert sorted(i for bin in bins for i in bin) == list(range(500))
    assert sum(sizes) / (64 * len(bins)) > 0.95


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    return tiny_model(vocab_size=50, spread=0.5)


def packed_logits(model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=batch["input_ids"], position_ids=batch["position_ids"], use_cache=False).logits


def alone(model: torch.nn.Module, dialogue: Encoded) -> tuple[torch.Tensor, float, int]:
    """Logits, summed loss and trained tokens of one dialogue in a separate batch."""
    ids, labels = torch.tensor([dialogue.input_ids]), torch.tensor(dialogue.labels)
    with torch.no_grad():
        logits = model(input_ids=ids).logits[0]
    loss = torch.nn.functional.cross_entropy(logits[:-1], labels[1:], ignore_index=-100, reduction="sum")
    return logits, float(loss), int((labels != -100).sum())


def test_packed_rows_give_the_logits_and_losses_of_single_dialogues(model: torch.nn.Module) -> None:
    dialogues = encoded([20, 11, 9, 7, 5, 5, 3])
    batch = PackedCollator()(pack(dialogues, 24, PAD, seed=0))
    assert batch.keys() == {"input_ids", "labels", "position_ids"}
    assert all(values.dtype == torch.int64 and values.shape == (3, 24) for values in batch.values())
    logits = packed_logits(model, batch)
    results = [alone(model, dialogue) for dialogue in dialogues]
    found = 0
    for dialogue, (expected, _, _) in zip(dialogues, results, strict=True):
        for row in range(3):
            for start in range(24 - len(dialogue.input_ids) + 1):
                stop = start + len(dialogue.input_ids)
                if batch["input_ids"][row, start:stop].tolist() == dialogue.input_ids:
                    torch.testing.assert_close(logits[row, start:stop], expected, atol=1e-4, rtol=1e-4)
                    found += 1
    assert found == len(dialogues)
    with torch.no_grad():
        loss = model(**batch, use_cache=False).loss
    mean = sum(loss for _, loss, _ in results) / sum(tokens for _, _, tokens in results)
    assert float(loss) == pytest.approx(mean, rel=1e-5)


def test_without_restarting_positions_dialogues_attend_to_each_other(model: torch.nn.Module) -> None:
    dialogues = encoded([11, 9])
    batch = PackedCollator()(pack(dialogues, 20, PAD, seed=0))
    second = alone(model, dialogues[1])[0]
    torch.testing.assert_close(packed_logits(model, batch)[0, 11:], second, atol=1e-4, rtol=1e-4)
    batch["position_ids"] = torch.arange(20)[None]
    assert (packed_logits(model, batch)[0, 11:] - second).abs().max() > 0.1


def test_one_dialogue_per_row() -> None:
    rows = plan_rows([5, 33, 32, 7], 32, seed=0, one_per_row=True)
    assert sorted(rows) == [[0], [2], [3]]
