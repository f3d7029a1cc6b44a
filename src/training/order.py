"""The order in which rows are trained: a pure function of the seed and the epoch, on any number of ranks."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import accumulate, repeat
from typing import Any, Protocol

import torch
from torch.utils.data import DataLoader, Sampler

from ..batches import batches
from .permutation import Permutation

CHUNK = 50  # batches sorted by length together: enough to save padding, few enough to stay random

_permutation = lru_cache(maxsize=64)(Permutation)


class Order(Protocol):
    """The rows of an epoch by their places in it: `order[place]`, for places below `len(order)`."""

    def set_epoch(self, epoch: int) -> None: ...

    def __len__(self) -> int: ...

    def __getitem__(self, place: int) -> int: ...


class SeededOrder:
    """Shuffles `count` rows anew in each epoch, the same way for the same seed on any number of ranks.

    With `lengths` (tokens of each row), rows of similar length share a batch of `batch_size`, so that little
    is padded: shuffled rows are sorted within chunks of 50 batches, then the batches are shuffled.
    """

    def __init__(
        self, count: int, seed: int, lengths: Sequence[int] | None = None, batch_size: int = 1
    ) -> None:
        self._count, self._seed, self._lengths, self._batch_size = count, seed, lengths, batch_size
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """To be called before each epoch."""
        generator = torch.Generator().manual_seed(self._seed * 1_000_003 + epoch)
        self._rows: list[int] = torch.randperm(self._count, generator=generator).tolist()
        if self._lengths is not None:
            self._rows = _by_length(self._rows, self._lengths, self._batch_size, generator)

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, place: int) -> int:
        return self._rows[place]


class MixedOrder:
    """Shuffles a mix of sources: an epoch takes each row of source s `weights[s]` times on average.

    Nothing is stored: finding the row of any place of any epoch takes the same short time. No row comes once
    more before all others of its source have come as often.

    Args:
        counts: rows of each source; they are numbered one source after the other.
        weights: 2 takes a source twice in an epoch, 0.5 half of it, each epoch another half.
    """

    def __init__(self, counts: Sequence[int], weights: Sequence[float], seed: int) -> None:
        self._counts, self._seed, self._epoch = counts, seed, 0
        self._taken = [
            max(1, round(count * weight)) if count else 0
            for count, weight in zip(counts, weights, strict=True)
        ]
        self._ends = list(accumulate(self._taken))
        self._first = [0, *accumulate(counts)]

    def set_epoch(self, epoch: int) -> None:
        """To be called before each epoch."""
        self._epoch = epoch

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, place: int) -> int:
        drawn = _permutation(len(self), f"{self._seed}/epoch/{self._epoch}")[place]
        source = bisect_right(self._ends, drawn)
        turn = (self._epoch + 1) * self._taken[source] - (self._ends[source] - drawn)
        cycle, turn = divmod(turn, self._counts[source])
        rows = _permutation(self._counts[source], f"{self._seed}/source/{source}/{cycle}")
        return self._first[source] + rows[turn]


class RankBatches(Sampler[list[int]]):
    """The micro-batches of one rank: of every `ranks` that follow each other in the order, the `rank`th.

    All ranks have equally many. Where rows are short of that at an epoch's end, the first ones are repeated;
    one rank alone repeats none, its last batch may be smaller.
    """

    def __init__(self, order: Order, batch_size: int, rank: int, ranks: int) -> None:
        self.order, self.batch_size, self.rank, self.ranks = order, batch_size, rank, ranks
        self._epoch, self._resumed = 0, (0, 0, 0)

    def set_epoch(self, epoch: int) -> None:
        self._epoch = epoch
        self.order.set_epoch(epoch)

    def resume(self, epoch: int, batches: int, left_out: int = 0) -> None:
        """In `epoch`, this rank has had so many batches already: they come empty, at no cost.

        `Trainer` walks over them: it skips batches by asking for them. As many as are `left_out` don't come
        at all; at the epoch's end its first rows come again in their place.
        """
        self._resumed = (epoch, batches, left_out)

    def __len__(self) -> int:
        return -(-len(self.order) // (self.batch_size * self.ranks))

    def __iter__(self) -> Iterator[list[int]]:
        epoch, passed, left_out = self._resumed
        if epoch != self._epoch:
            passed = left_out = 0
        yield from repeat([], passed)
        for batch in range(passed, len(self)):
            yield self._rows(batch, left_out)

    def _rows(self, batch: int, left_out: int) -> list[int]:
        count, size = len(self.order), self.batch_size
        start = (batch * self.ranks + self.rank) * size
        end = min(start + size, count) if self.ranks == 1 else start + size
        ahead = left_out * self.ranks * size
        return [self.order[(place + ahead) % count] for place in range(start, end)]


class OrderedLoader(DataLoader[Any]):
    """A data loader over `RankBatches` that hands the epoch on, as `Trainer` expects of its own."""

    def set_epoch(self, epoch: int) -> None:
        assert isinstance(self.batch_sampler, RankBatches)
        self.batch_sampler.set_epoch(epoch)


def _by_length(
    rows: list[int], lengths: Sequence[int], batch_size: int, generator: torch.Generator
) -> list[int]:
    dealt: list[list[int]] = []
    for chunk in batches(rows, CHUNK * batch_size):
        ordered = sorted(chunk, key=lambda row: lengths[row], reverse=True)
        dealt += batches(ordered, batch_size)
    # a short batch has to come last: the loader cuts batches by position
    last = [dealt.pop()] if dealt and len(dealt[-1]) < batch_size else []
    shuffled = [dealt[i] for i in torch.randperm(len(dealt), generator=generator).tolist()]
    return [row for batch in shuffled + last for row in batch]
