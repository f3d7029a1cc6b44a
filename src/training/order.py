"""The order in which rows are trained: a pure function of the seed and the epoch, on any number of ranks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader, Sampler

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
        """To be called before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        rows: list[int] = torch.randperm(self.count, generator=generator).tolist()
        if self.lengths is not None:
            rows = _by_length(rows, self.lengths, self.batch_size, generator)
        return iter(rows)


class RankBatches(Sampler[list[int]]):
    """The micro-batches of one rank: of every `ranks` that follow each other in the order, the `rank`th.

    All ranks have equally many. Where rows are short of that at an epoch's end, the first ones are repeated;
    one rank alone repeats none, its last batch may be smaller.
    """

    def __init__(self, order: SeededOrder, batch_size: int, rank: int, ranks: int) -> None:
        self.order, self.batch_size, self.rank, self.ranks = order, batch_size, rank, ranks

    def set_epoch(self, epoch: int) -> None:
        self.order.set_epoch(epoch)

    def __len__(self) -> int:
        return -(-len(self.order) // (self.batch_size * self.ranks))

    def __iter__(self) -> Iterator[list[int]]:
        rows = list(self.order)
        if self.ranks > 1:
            needed = len(self) * self.batch_size * self.ranks
            rows *= -(-needed // max(1, len(rows)))
            del rows[needed:]
        for start in range(self.rank * self.batch_size, len(rows), self.ranks * self.batch_size):
            yield rows[start : start + self.batch_size]


class OrderedLoader(DataLoader[Any]):
    """A data loader over `RankBatches` that hands the epoch on, as `Trainer` expects of its own."""

    def set_epoch(self, epoch: int) -> None:
        assert isinstance(self.batch_sampler, RankBatches)
        self.batch_sampler.set_epoch(epoch)


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
