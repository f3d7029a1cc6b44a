"""Rows of different lengths as one tensor, padded on either side."""

from __future__ import annotations

import torch

from llamita.model.padding import pad_batch, pad_left, pad_right


def test_the_mask_selects_the_states_that_predict_the_answer() -> None:
    ids, mask = pad_batch([[1, 5], [1]], [[6, 2], [7, 8, 2]])
    assert ids.tolist() == [[1, 5, 6, 2], [1, 7, 8, 2]]
    assert mask.tolist() == [[False, True, True], [True, True, True]]
    ids, mask = pad_batch([[1, 5], [1]], [[0, 2], [7]], pad_token_id=0)
    assert ids.tolist() == [[1, 5, 0, 2], [1, 7, 0, 0]]
    assert mask.tolist() == [[False, True, True], [True, False, False]], (
        "the mask does not depend on the pads"
    )


def test_the_index_of_the_last_token_does_not_depend_on_pads() -> None:
    ids, last = pad_right([[1, 5, 0], [1], [7, 8]], pad_token_id=0)
    assert ids.tolist() == [[1, 5, 0], [1, 0, 0], [7, 8, 0]]
    assert last.tolist() == [2, 0, 1]
    assert pad_right([[1, 5], [1]], pad_token_id=9)[0].tolist() == [[1, 5], [1, 9]]


def test_pads_on_the_left_and_their_mask() -> None:
    ids, mask = pad_left([[5], [6, 7, 8]], 2)
    assert ids.tolist() == [[2, 2, 5], [6, 7, 8]]
    assert mask.tolist() == [[0, 0, 1], [1, 1, 1]]
    assert ids.dtype == mask.dtype == torch.int64


def test_tensors_are_padded_like_lists() -> None:
    rows = [[5], [6, 7, 8]]
    for found, expected in zip(
        pad_right([torch.tensor(row) for row in rows], -100), pad_right(rows, -100), strict=True
    ):
        assert torch.equal(found, expected)
    assert pad_right(rows, -100)[0].tolist() == [[5, -100, -100], [6, 7, 8]]
