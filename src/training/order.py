"""Order of the training rows: a pure function of seed and epoch, for any number of ranks."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate, chain, repeat
from typing import Any, Protocol

from torch.utils.data import DataLoader, Sampler

from ..batches import batches
from .kept_places import KeptPlaces, Span, spans_in_epoch
from .permutation import Epochs, permutation


class Order(Protocol):
    """Rows of an epoch: `order[place]` is the row at a place from 0 to `len(order) - 1`."""

    def set_epoch(self, epoch: int) -> None: ...

    def __len__(self) -> int: ...

    def __getitem__(self, place: int) -> int: ...


class SeededOrder:
    """Shuffles `count` rows differently in each epoch; the same seed gives the same order on all ranks."""

    def __init__(self, count: int, seed: int | str) -> None:
        self._count, self._epochs, self._epoch = count, Epochs(count, seed), 0

    def set_epoch(self, epoch: int) -> None:
        """Sets the epoch; must be called before each epoch."""
        self._epoch = epoch

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, place: int) -> int:
        if not 0 <= place < self._count:
            raise IndexError(place)
        return self._epochs[self._epoch * self._count + place]


class MixedOrder:
    """Shuffles a mix of sources: an epoch uses each row of source s `weights[s]` times on average.

    Nothing is stored: the row at any place of any epoch is computed in constant time. Within a source no row
    is used k + 1 times before every row was used k times.

    Args:
        counts: number of rows of each source; rows are numbered source by source.
        weights: 2 uses a source twice per epoch; 0.5 uses half of it, a different half in each epoch.
    """

    def __init__(self, counts: Sequence[int], weights: Sequence[float], seed: int) -> None:
        self._counts, self._seed, self._epoch = counts, seed, 0
        self._per_epoch = [
            max(1, round(count * weight)) if count else 0
            for count, weight in zip(counts, weights, strict=True)
        ]
        self._ends = list(accumulate(self._per_epoch))
        self._shuffled = SeededOrder(self._ends[-1], seed)
        self._first = [0, *accumulate(counts)]

    def set_epoch(self, epoch: int) -> None:
        """Sets the epoch; must be called before each epoch."""
        self._epoch = epoch
        self._shuffled.set_epoch(epoch)

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, place: int) -> int:
        shuffled = self._shuffled[place]
        source = bisect_right(self._ends, shuffled)
        # uses of the source before this one, over all epochs; each cycle uses every row once
        uses = (self._epoch + 1) * self._per_epoch[source] - (self._ends[source] - shuffled)
        cycle, index = divmod(uses, self._counts[source])
        rows = permutation(self._counts[source], f"{self._seed}/source/{source}/{cycle}")
        return self._first[source] + rows[index]


class RankBatches(Sampler[list[int]]):
    """Micro-batches of one rank: of every `ranks` consecutive ones in the order, the one at index `rank`.

    All ranks have the same number of micro-batches. Several ranks fill the end of an epoch with its first
    rows; a single rank repeats no row, its last micro-batch may be smaller.

    With `lengths` (tokens of each row), the rank's rows of an optimizer step of `accumulation` micro-batches
    are sorted by length before they are split into micro-batches. This reduces padding and does not change
    which rows a step has.
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
        self._epoch, self._resumed = 0, (0, 0)
        self._skipped: Sequence[Span] = ()

    def set_epoch(self, epoch: int) -> None:
        self._epoch = epoch
        self.order.set_epoch(epoch)

    def resume(self, epoch: int, batches: int, skipped: Sequence[Span] = ()) -> None:
        """Makes `epoch` yield its first `batches` micro-batches empty, since they were trained before.

        `Trainer` requests them in order to skip them.

        Args:
            skipped: for each rollback the steps of the run whose rows are skipped, as a first step and a
                number of steps, the oldest rollback first; see `KeptPlaces`.
        """
        self._resumed, self._skipped = (epoch, batches), skipped

    def __len__(self) -> int:
        return -(-len(self.order) // (self.batch_size * self.ranks))

    def __iter__(self) -> Iterator[list[int]]:
        epoch, trained = self._resumed
        if epoch != self._epoch:
            trained = 0
        places = KeptPlaces(len(self.order), self._skipped_rows())
        yield from repeat([], trained)
        for first in range(trained, len(self), self._accumulation):
            step = range(first, min(first + self._accumulation, len(self)))
            yield from self._sorted_by_length([self._rows(batch, places) for batch in step])

    def _skipped_rows(self) -> list[Span]:
        """The part of `skipped` in this epoch, as rows."""
        steps = -(-len(self) // self._accumulation)
        rows_per_step = self._accumulation * self.batch_size * self.ranks
        return [
            (first * rows_per_step, count * rows_per_step)
            for first, count in spans_in_epoch(self._skipped, self._epoch, steps)
        ]

    def _rows(self, batch: int, places: KeptPlaces) -> list[int]:
        size = self.batch_size
        start = (batch * self.ranks + self.rank) * size
        end = min(start + size, len(self.order)) if self.ranks == 1 else start + size
        return [self.order[places[row]] for row in range(start, end)]

    def _sorted_by_length(self, step: list[list[int]]) -> list[list[int]]:
        """Sorts a step's rows, longest first, so that running out of GPU memory happens at once."""
        if self._lengths is None:
            return step
        rows = sorted(chain.from_iterable(step), key=self._lengths.__getitem__, reverse=True)
        return batches(rows, self.batch_size)


class OrderedLoader(DataLoader[Any]):
    """Data loader over `RankBatches` with the `set_epoch` that `Trainer` calls."""

    def set_epoch(self, epoch: int) -> None:
        assert isinstance(self.batch_sampler, RankBatches)
        self.batch_sampler.set_epoch(epoch)
