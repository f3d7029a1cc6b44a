"""Shuffles that are computed place by place."""

from __future__ import annotations

from collections import Counter

import pytest

from llamita.training.permutation import Epochs, Permutation


@pytest.mark.parametrize("count", [1, 2, 3, 5, 16, 17, 1000, 4097])
def test_every_number_comes_once(count: int) -> None:
    assert sorted(Permutation(count, "a")) == list(range(count))


def test_the_key_determines_the_order() -> None:
    first = list(Permutation(1000, "0/epoch/0"))
    assert first == list(Permutation(1000, "0/epoch/0"))
    assert first != list(Permutation(1000, "0/epoch/1"))


def test_it_is_uniform() -> None:
    """Where 16 numbers land over 8,000 keys: chi-squared of 15 degrees, 99.9% of which are below 37.7."""
    keys = 8000
    for place in (0, 7, 15):
        landed = Counter(Permutation(16, str(key))[place] for key in range(keys))
        expected = keys / 16
        assert sum((landed[number] - expected) ** 2 / expected for number in range(16)) < 37.7
    neighbours = Counter(
        (permutation[4] - permutation[3]) % 13
        for permutation in (Permutation(13, str(key)) for key in range(keys))
    )
    assert neighbours.keys() == set(range(1, 13))
    assert sum((neighbours[step] - keys / 12) ** 2 / (keys / 12) for step in range(1, 13)) < 31.3


def test_places_outside_are_refused() -> None:
    for place in (-1, 5):
        with pytest.raises(IndexError):
            Permutation(5, "a")[place]


def test_each_item_comes_once_per_epoch() -> None:
    order = [Epochs(7, "a seed")[place] for place in range(21)]
    assert [sorted(order[start : start + 7]) for start in (0, 7, 14)] == [list(range(7))] * 3
    assert order[:7] != order[7:14]
    assert order != [Epochs(7, "another seed")[place] for place in range(21)]
