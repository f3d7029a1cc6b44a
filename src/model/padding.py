"""Rows of token ids as one tensor."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

UNTRAINED = -100  # label of a token that takes no part in the loss


def pad_right(rows: Sequence[Sequence[int] | Tensor], pad_token_id: int = 0) -> tuple[Tensor, Tensor]:
    """Ids as `[rows, longest]` int64, pads on the right, and the `[rows]` index of each row's last token."""
    ids = torch.full((len(rows), max(map(len, rows))), pad_token_id, dtype=torch.long)
    for place, row in enumerate(rows):
        ids[place, : len(row)] = torch.as_tensor(row)
    return ids, torch.tensor([len(row) - 1 for row in rows])


def pad_left(rows: Sequence[Sequence[int]], pad_token_id: int) -> tuple[Tensor, Tensor]:
    """Ids as `[rows, longest]` int64, pads on the left, and a mask like it: 1 at tokens."""
    ids = torch.full((len(rows), max(map(len, rows))), pad_token_id, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for place, row in enumerate(rows):
        ids[place, ids.shape[1] - len(row) :] = torch.as_tensor(row)
        mask[place, ids.shape[1] - len(row) :] = 1
    return ids, mask


def pad_batch(
    prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]], pad_token_id: int = 0
) -> tuple[Tensor, Tensor]:
    """Prompt and answer of each row, one after the other, padded on the right.

    Returns:
        ids `[rows, length]` int64, and answer mask `[rows, length - 1]` bool: True at `t` where token `t + 1`
        is the answer's, so that the state at `t` predicts it.
    """
    ids, last = pad_right(
        [[*prompt, *answer] for prompt, answer in zip(prompts, answers, strict=True)], pad_token_id
    )
    first = torch.tensor([len(prompt) - 1 for prompt in prompts])
    places = torch.arange(ids.shape[1] - 1)
    return ids, (places >= first[:, None]) & (places < last[:, None])
