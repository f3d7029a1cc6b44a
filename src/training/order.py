"""The order in which rows are trained: a pure function of the seed and the epoch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import Sampler

CHUNK = 50  # batches sorted by length together: enough to save padding, few enough to stay random


class SeededOrder(Sampler[int]):
    """Shuffles `count` rows anew in each epoch, the same way for the same seed on any number of ranks.

    With `lengths` (tokens of each row), rows of similar length share a batch of `batch_size`, so that little
    is padded: shuffled rows are sorted within chunks of 50 batches, then the batches are shuffled.
    """

    def __init__(
        self, count: int, seed: int, lengths: Sequence[int] | None = None, batch_size: int = 1
    ) -> None:
        self.count, self.seed, self.lengths, self.batch_size = count, seed, lengths, batch_size
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by the data loader before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        rows: list[int] = torch.randperm(self.count, generator=generator).tolist()
        if self.lengths is not None:
            rows = _by_length(rows, self.lengths, self.batch_size, generator)
        return iter(rows)


def _by_length(
    rows: list[int], lengths: Sequence[int], batch_size: int, generator: torch.Generator
) -> list[int]:
    chunk = CHUNK * batch_size
    batches: list[list[int]] = []
    for start in range(0, len(rows), chunk):
        ordered = sorted(rows[start : start + chunk], key=lambda row: lengths[row], reverse=True)
        batches += [ordered[at : at + batch_size] for at in range(0, len(ordered), batch_size)]
    # a short batch has to come last: the loader cuts batches by position
    last = [batches.pop()] if batches and len(batches[-1]) < batch_size else []
    shuffled = [batches[i] for i in torch.randperm(len(batches), generator=generator).tolist()]
    return [row for batch in shuffled + last for row in batch]
