"""Batches of rows of similar length."""

from __future__ import annotations

import torch

from llamita.batches import batches_by_length, tokens_at_once


def test_rows_of_similar_length_share_a_batch_up_to_both_limits() -> None:
    lengths = [9, 2, 30, 3, 2, 8, 12, 2]
    cut = batches_by_length(lengths, size=3, tokens=24)
    assert [[lengths[row] for row in batch] for batch in cut] == [[2, 2, 2], [3, 8], [9, 12], [30]]
    assert sorted(row for batch in cut for row in batch) == list(range(8)), "each once"
    assert cut[0] == [1, 4, 7], "equal rows keep their order"
    assert batches_by_length([], size=3, tokens=24) == []


def test_a_cpu_reads_less_at_once_than_a_gpu() -> None:
    assert tokens_at_once(torch.device("cpu")) < tokens_at_once(torch.device("cuda"))
