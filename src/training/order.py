"""The order in which rows are trained: a pure function of the seed and the epoch, on any number of ranks."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate, chain, repeat
from typing import Any, Protocol

from torch.utils.data import DataLoader, Sampler

from ..batches import batches
from .permutation import Epochs, permutation


class Order(Protocol):
    """The rows of an epoch by their places in it: `order[place]`, for places below `len(order)`."""

    def set_epoch(self, epoch: int) -> None: ...

    def __len__(self) -> int: ...

    def __getitem__(self, place: int) -> int: ...


class SeededOrder:
    """Shuffles `count` rows anew in each epoch, the same way for the same seed on any number of ranks."""

    def __init__(self, count: int, seed: int | str) -> None:
        self._count, self._epochs, self._epoch = count, Epochs(count, seed), 0

    def set_epoch(self, epoch: int) -> None:
        """To be called before each epoch."""
        self._epoch = epoch

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, place: int) -> int:
        if not 0 <= place < self._count:
            raise IndexError(place)
        return self._epochs[self._epoch * self._count + place]


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
        self._drawn = SeededOrder(self._ends[-1], seed)
        self._first = [0, *accumulate(counts)]

    def set_epoch(self, epoch: int) -> None:
        """To be called before each epoch."""
        self._epoch = epoch
        self._drawn.set_epoch(epoch)

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, place: int) -> int:
        drawn = self._drawn[place]
        source = bisect_right(self._ends, drawn)
        turn = (self._epoch + 1) * self._taken[source] - (self._ends[source] - drawn)
        cycle, turn = divmod(turn, self._counts[source])
        rows = permutation(self._counts[source], f"{self._seed}/source/{source}/{cycle}")
        return self._first[source] + rows[turn]


class RankBatches(Sampler[list[int]]):
    """The micro-batches of one rank: of every `ranks` that follow each other in the order, the `rank`th.

    All ranks have equally many. Where rows are short of that at an epoch's end, the first ones are repeated;
    one rank alone repeats none, its last batch may be smaller.

    With `lengths` (tokens of each row) the rank's rows of an optimizer step, which has `accumulation`
    micro-batches, are sorted before they are split into micro-batches: little is padded, and which rows a
    step has is as random as without.
    """

    def __init__(
        self,
        order: Order,
        batch_size: int,
        rank: int,
        *,
        ranks: int,
        lengths: Sequence[int] | None = None,
        accumulation: int = 1,
    ) -> None:
        self.order, self.batch_size, self.rank, self.ranks = order, batch_size, rank, ranks
        self._lengths, self._accumulation = lengths, accumulation
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
        for first in range(passed, len(self), self._accumulation):
            step = range(first, min(first + self._accumulation, len(self)))
            yield from self._by_length([self._rows(batch, left_out) for batch in step])

    def _rows(self, batch: int, left_out: int) -> list[int]:
        count, size = len(self.order), self.batch_size
        start = (batch * self.ranks + self.rank) * size
        end = min(start + size, count) if self.ranks == 1 else start + size
        ahead = left_out * self.ranks * size
        return [self.order[(place + ahead) % count] for place in range(start, end)]

    def _by_length(self, step: list[list[int]]) -> list[list[int]]:
        """The rows of a step's micro-batches, the longest first: what is too much for a GPU fails at once."""
        if self._lengths is None:
            return step
        rows = sorted(chain.from_iterable(step), key=self._lengths.__getitem__, reverse=True)
        return batches(rows, self.batch_size)


class OrderedLoader(DataLoader[Any]):
    """A data loader over `RankBatches` that hands the epoch on, as `Trainer` expects of its own."""

    def set_epoch(self, epoch: int) -> None:
        assert isinstance(self.batch_sampler, RankBatches)
        self.batch_sampler.set_epoch(epoch)
