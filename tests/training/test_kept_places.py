"""Which rows are trained after rollbacks: none of those that were skipped, also across epochs."""

from __future__ import annotations

import random

import pytest

from llamita.training.kept_places import KeptPlaces, spans_in_epoch
from llamita.training.order import RankBatches, SeededOrder


def in_full(count: int, skipped: list[tuple[int, int]], length: int) -> list[int]:
    """What `KeptPlaces` computes, with lists: the kept rows, and the turns in which they repeat."""
    kept, repeats = list(range(count)), list(range(1000))
    for first, rows in skipped:
        of_repeats = slice(max(0, first - len(kept)), max(0, first + rows - len(kept)))
        del kept[first : first + rows], repeats[of_repeats]
    return (kept + [kept[turn % len(kept)] for turn in repeats])[:length]


def test_places_are_those_of_a_list_without_the_skipped_rows() -> None:
    draws = random.Random(0)
    for _ in range(500):
        count = draws.randint(1, 12)
        left, skipped = count, []
        for _ in range(draws.randint(0, 3)):
            first, rows = draws.randrange(count), draws.randint(1, 6)
            if left > max(0, min(rows, left - first)):
                skipped.append((first, rows))
                left -= max(0, min(rows, left - first))
        places = KeptPlaces(count, skipped)
        assert [places[row] for row in range(count + 3)] == in_full(count, skipped, count + 3)


def test_an_epoch_that_is_skipped_whole_is_trained_whole() -> None:
    """There is nothing else to train on."""
    places = KeptPlaces(6, [(0, 4), (0, 2)])
    assert [places[row] for row in range(8)] == [0, 1, 2, 3, 4, 5, 0, 1]


def test_rows_that_fill_the_end_of_an_epoch_are_skipped_as_well() -> None:
    before = KeptPlaces(10, [(2, 4)])
    assert [before[row] for row in range(10)] == [0, 1, 6, 7, 8, 9, 0, 1, 6, 7]
    after = KeptPlaces(10, [(2, 4), (7, 2)])  # training diverged on the second 1
    assert [after[row] for row in range(10)] == [0, 1, 6, 7, 8, 9, 0, 7, 8, 9]


def test_spans_are_divided_between_epochs() -> None:
    spans = [(8, 4), (25, 20), (0, 3)]
    assert spans_in_epoch(spans, 0, 10) == [(8, 2), (0, 3)]
    assert spans_in_epoch(spans, 1, 10) == [(0, 2)]
    assert spans_in_epoch(spans, 2, 10) == [(5, 5)]
    assert spans_in_epoch(spans, 3, 10) == [(0, 10)]
    assert spans_in_epoch(spans, 4, 10) == [(0, 5)]


@pytest.mark.parametrize(("size", "ranks", "accumulation"), [(2, 1, 1), (1, 2, 1), (1, 1, 2)])
def test_a_rollback_over_the_end_of_an_epoch_skips_rows_of_both(
    size: int, ranks: int, accumulation: int
) -> None:
    """Steps of two rows; the checkpoint is after step 8 of 10, four steps are skipped."""
    order = SeededOrder(20, seed=0)
    epochs = []
    for epoch in (0, 1):
        order.set_epoch(epoch)
        epochs.append(list(order))
    shares = [RankBatches(order, size, rank, ranks=ranks, accumulation=accumulation) for rank in range(ranks)]
    trained = []
    for epoch in (0, 1):
        for share in shares:
            share.resume(0, 8 * accumulation, [(8, 4)])
            share.set_epoch(epoch)
        turns = zip(*map(list, shares), strict=True)
        trained.append([row for turn in turns for batch in turn for row in batch])
    assert trained[0] == epochs[0][:4]  # nothing is left of it: its first rows again
    assert trained[1] == epochs[1][4:] + epochs[1][4:8]


def test_a_skip_after_the_checkpoint_waits_for_its_step() -> None:
    """The checkpoint to which training was rolled back is damaged; it resumes from an earlier one."""
    order = SeededOrder(10, seed=0)
    batches = RankBatches(order, 1, 0, ranks=1)
    batches.resume(0, 2, [(5, 2)])
    rows = list(order)
    assert list(batches) == [[], [], *([row] for row in rows[2:5] + rows[7:] + rows[:2])]
