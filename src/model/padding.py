"""Pads rows of token ids to one tensor."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

UNTRAINED = -100  # label of a token without loss


def pad_right(rows: Sequence[Sequence[int] | Tensor], pad_token_id: int = 0) -> tuple[Tensor, Tensor]:
    """Returns ids `[rows, longest]` int64, padded on the right, and the index `[rows]` of each last token."""
    ids = torch.full((len(rows), max(map(len, rows))), pad_token_id, dtype=torch.long)
    for place, row in enumerate(rows):
        ids[place, : len(row)] = torch.as_tensor(row)
    return ids, torch.tensor([len(row) - 1 for row in rows])


def pad_left(rows: Sequence[Sequence[int]], pad_token_id: int) -> tuple[Tensor, Tensor]:
    """Returns ids `[rows, longest]` int64, padded on the left, and a mask of the same shape: 1 at tokens."""
    ids = torch.full((len(rows), max(map(len, rows))), pad_token_id, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for place, row in enumerate(rows):
        ids[place, ids.shape[1] - len(row) :] = torch.as_tensor(row)
        mask[place, ids.shape[1] - len(row) :] = 1
    return ids, mask


def pad_batch(
    prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]], pad_token_id: int = 0
) -> tuple[Tensor, Tensor]:
    """Concatenates prompt and answer of each row and pads on the right.

    Returns:
        ids `[rows, length]` int64, and answer mask `[rows, length - 1]` bool: True at `t` if token `t + 1`,
        which the state at `t` predicts, belongs to the answer.
    """
    ids, last = pad_right(
        [[*prompt, *answer] for prompt, answer in zip(prompts, answers, strict=True)], pad_token_id
    )
    first = torch.tensor([len(prompt) - 1 for prompt in prompts])
    places = torch.arange(ids.shape[1] - 1)
    return ids, (places >= first[:, None]) & (places < last[:, None])
