"""The seeded order of rows."""

from __future__ import annotations

import random
import statistics
import time
from collections import Counter

import pytest

from llamita.training.order import MixedOrder, RankBatches, SeededOrder


def test_every_row_comes_once_in_an_order_that_depends_on_seed_and_epoch():
    order = SeededOrder(100, seed=3)
    first = list(order)
    assert sorted(first) == list(range(100))
    assert first == list(order) == list(SeededOrder(100, seed=3))
    assert first != list(SeededOrder(100, seed=4))
    order.set_epoch(1)
    assert list(order) != first


def drawn_lengths(count: int) -> list[int]:
    draws = random.Random("lengths")
    return [draws.randint(5, 200) for _ in range(count)]


def share_between(lengths: list[int], steps: list[list[int]]) -> float:
    """Share of the variance of length that lies between steps, not within them."""
    means = [statistics.mean(lengths[row] for row in step) for step in steps for _ in step]
    return statistics.pvariance(means) / statistics.pvariance(lengths)


@pytest.mark.parametrize(("size", "accumulation", "ranks"), [(16, 4, 1), (8, 4, 2), (64, 1, 1)])
def test_steps_are_as_mixed_as_if_drawn_at_random(size: int, accumulation: int, ranks: int) -> None:
    count = size * accumulation * ranks
    lengths = drawn_lengths(count * 60)
    order = SeededOrder(len(lengths), seed=0)
    options = {"lengths": lengths, "accumulation": accumulation}
    shares = [list(RankBatches(order, size, rank, ranks=ranks, **options)) for rank in range(ranks)]
    steps = [
        [row for share in shares for batch in share[at : at + accumulation] for row in batch]
        for at in range(0, len(shares[0]), accumulation)
    ]
    rows = list(order)
    assert list(map(sorted, steps)) == [sorted(rows[at : at + count]) for at in range(0, len(rows), count)]
    assert share_between(lengths, steps) < 2 / count  # expected of random ones: 1 / count


def test_micro_batches_of_a_step_have_rows_of_similar_length() -> None:
    lengths = drawn_lengths(640 + 7)
    order = SeededOrder(len(lengths), seed=0)

    def padding(batches: list[list[int]]) -> int:
        return sum(max(lengths[row] for row in batch) - lengths[row] for batch in batches for row in batch)

    plain = list(RankBatches(order, 8, 0, ranks=1))
    grouped = list(RankBatches(order, 8, 0, ranks=1, lengths=lengths, accumulation=16))
    assert [len(batch) for batch in grouped] == [len(batch) for batch in plain]
    assert sorted(row for batch in grouped for row in batch) == list(range(len(lengths)))
    assert padding(grouped) < 0.15 * padding(plain)


def test_sorted_micro_batches_resume_where_they_were() -> None:
    lengths = drawn_lengths(50)
    options = {"lengths": lengths, "accumulation": 3}
    whole = list(RankBatches(SeededOrder(50, seed=1), 4, 0, ranks=1, **options))
    assert whole == list(RankBatches(SeededOrder(50, seed=1), 4, 0, ranks=1, **options))
    resumed = RankBatches(SeededOrder(50, seed=1), 4, 0, ranks=1, **options)
    resumed.resume(0, 6)
    assert list(resumed) == [[]] * 6 + whole[6:]


def test_without_rows_there_is_no_order():
    assert list(SeededOrder(0, 0)) == []
    assert list(RankBatches(SeededOrder(0, 0), 4, 0, ranks=1, lengths=[], accumulation=2)) == []


@pytest.mark.parametrize(("count", "size", "ranks"), [(24, 4, 2), (23, 4, 2), (5, 4, 3), (12, 2, 3)])
def test_ranks_share_the_rows_and_have_the_same_number_of_batches(count: int, size: int, ranks: int) -> None:
    order = SeededOrder(count, seed=1)
    shares = [RankBatches(order, size, rank, ranks=ranks) for rank in range(ranks)]
    batches = [list(share) for share in shares]
    assert {len(own) for own in batches} == {len(share) for share in shares}
    together = [row for turn in zip(*batches, strict=True) for batch in turn for row in batch]
    rows = list(order)
    assert together[:count] == rows
    assert together[count:] == (rows * size)[: len(together) - count]  # the first ones again
    shares[0].set_epoch(1)
    assert list(shares[0]) != batches[0]


def test_one_rank_alone_repeats_nothing() -> None:
    batches = list(RankBatches(SeededOrder(10, 0), 4, 0, ranks=1))
    assert [len(batch) for batch in batches] == [4, 4, 2]


def test_a_mix_takes_sources_by_their_weights_and_rows_equally_often() -> None:
    counts, weights = [10, 7, 0, 4], [1.0, 2.5, 1.0, 0.5]
    order = MixedOrder(counts, weights, seed=0)
    assert len(order) == 10 + 18 + 2  # 17.5 rounded to even
    taken: Counter[int] = Counter()
    for epoch in range(4):
        order.set_epoch(epoch)
        rows = [order[place] for place in range(len(order))]
        assert Counter(sum(row >= end for end in (10, 17)) for row in rows) == {0: 10, 1: 18, 2: 2}
        taken.update(rows)
        for source in (range(10), range(10, 17), range(17, 21)):
            often = [taken[row] for row in source]
            assert max(often) - min(often) <= 1
    assert [taken[row] for row in range(17, 21)] == [2, 2, 2, 2]  # half of them an epoch


def test_a_mix_is_shuffled_by_seed_and_epoch() -> None:
    order = MixedOrder([50, 50], [1.0, 1.0], seed=0)
    first = list(order)
    assert sorted(first) == list(range(100))
    assert first == list(MixedOrder([50, 50], [1.0, 1.0], seed=0))
    assert first != list(MixedOrder([50, 50], [1.0, 1.0], seed=1))
    order.set_epoch(1)
    assert list(order) != first
    assert 15 < sum(row < 50 for row in first[:50]) < 35  # both sources from the beginning


@pytest.mark.parametrize(("size", "ranks"), [(4, 1), (2, 2), (1, 4)])
def test_a_resumed_epoch_continues_on_any_number_of_ranks(size: int, ranks: int) -> None:
    order = MixedOrder([25], [1.0], seed=1)
    whole = list(order)
    shares = [RankBatches(order, size, rank, ranks=ranks) for rank in range(ranks)]
    for share in shares:
        share.resume(0, 3)
    batches = [list(share) for share in shares]
    assert all(own[:3] == [[], [], []] for own in batches)
    left = [row for turn in zip(*batches, strict=True) for batch in turn for row in batch]
    assert left[:13] == whole[12:]  # twelve rows were trained before
    for share in shares:
        share.set_epoch(1)
    assert [] not in list(shares[0])


def test_the_last_row_of_a_trillion_is_found_as_fast_as_the_first() -> None:
    order = MixedOrder([10**12, 10**11], [1.0, 2.0], seed=0)
    batches = RankBatches(order, 4, 0, ranks=2)
    batches.resume(0, 0)

    def seconds(place: int) -> float:
        started = time.perf_counter()
        rows = [order[place + step] for step in range(200)]
        assert len(set(rows)) == 200
        return time.perf_counter() - started

    first, last = (min(seconds(place) for _ in range(5)) for place in (0, len(order) - 200))
    assert last < 10 * first  # a search through all rows would take days
