"""Rows of unlike lengths as one tensor, padded on either side."""

from __future__ import annotations

import torch

from llamita.model.padding import pad_left, pad_right


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
