"""The seeded order of rows."""

from __future__ import annotations

import random

import pytest

from llamita.training.order import CHUNK, RankBatches, SeededOrder


def test_every_row_comes_once_in_an_order_of_seed_and_epoch():
    order = SeededOrder(100, seed=3)
    first = list(order)
    assert sorted(first) == list(range(100))
    assert first == list(order) == list(SeededOrder(100, seed=3))
    assert first != list(SeededOrder(100, seed=4))
    order.set_epoch(1)
    assert list(order) != first


def test_rows_of_like_length_share_a_batch():
    draws = random.Random("lengths")
    lengths = [draws.randint(5, 200) for _ in range(16 * CHUNK + 7)]

    def padding(rows: list[int]) -> int:
        batches = [rows[at : at + 16] for at in range(0, len(rows), 16)]
        return sum(max(lengths[row] for row in batch) - lengths[row] for batch in batches for row in batch)

    grouped = list(SeededOrder(len(lengths), 0, lengths, 16))
    assert sorted(grouped) == list(range(len(lengths)))
    assert padding(grouped) < 0.1 * padding(list(SeededOrder(len(lengths), 0)))
    # the batches themselves are shuffled: no long stretch of short rows
    firsts = [lengths[grouped[at]] for at in range(0, 16 * CHUNK, 16)]
    assert firsts not in (sorted(firsts), sorted(firsts, reverse=True))


def test_without_rows_there_is_no_order():
    assert list(SeededOrder(0, 0, [], 4)) == []


@pytest.mark.parametrize(("count", "size", "ranks"), [(24, 4, 2), (23, 4, 2), (5, 4, 3), (12, 2, 3)])
def test_ranks_share_out_the_rows_of_one_and_have_equally_many(count: int, size: int, ranks: int) -> None:
    order = SeededOrder(count, seed=1)
    shares = [RankBatches(order, size, rank, ranks) for rank in range(ranks)]
    batches = [list(share) for share in shares]
    assert {len(one) for one in batches} == {len(share) for share in shares}
    together = [row for turn in zip(*batches, strict=True) for batch in turn for row in batch]
    rows = list(order)
    assert together[:count] == rows
    assert together[count:] == (rows * size)[: len(together) - count]  # the first ones again
    shares[0].set_epoch(1)
    assert list(shares[0]) != batches[0]


def test_one_rank_alone_repeats_nothing() -> None:
    batches = list(RankBatches(SeededOrder(10, 0), 4, 0, 1))
    assert [len(batch) for batch in batches] == [4, 4, 2]
