"""Agreement of raters against published and hand-computed numbers."""

from __future__ import annotations

import pytest

from llamita.judges.agreement import ac2

# four raters and twelve units of Gwet's handbook (2014), table 2.10; some ratings are missing
GWET = [
    [1, 1, 1],
    [2, 2, 3, 2],
    [3, 3, 3, 3],
    [3, 3, 3, 3],
    [2, 2, 2, 2],
    [1, 2, 3, 4],
    [4, 4, 4, 4],
    [1, 1, 2, 1],
    [2, 2, 2, 2],
    [5, 5, 5],
    [1, 1],
    [3],
]


def test_the_handbooks_example_with_quadratic_weights() -> None:
    assert ac2(GWET, 5) == pytest.approx(0.9140, abs=5e-5)  # irrCAC 0.4: 0.91400


def test_two_raters_by_hand() -> None:
    # with two categories only equal ratings agree: a = 3/4, shares 5/8 and 3/8, e = 2 · (15/64 + 15/64) / 2
    expected = 30 / 64
    assert ac2([[1, 1], [1, 1], [1, 2], [2, 2]], 2) == pytest.approx((0.75 - expected) / (1 - expected))


def test_near_ratings_agree_better_than_far_ones() -> None:
    near, far = ac2([[1, 2], [4, 5], [3, 3]], 5), ac2([[1, 5], [4, 1], [3, 3]], 5)
    assert near is not None
    assert far is not None
    assert near > 0.8 > far


def test_without_a_second_rating_there_is_no_agreement() -> None:
    assert ac2([[1], [2]], 5) is None
    assert ac2([], 5) is None
    assert ac2([[4, 4, 4], []], 5) == pytest.approx(1)
