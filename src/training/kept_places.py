"""Which rows of an epoch are trained after rollbacks, whose steps' rows are skipped."""

from __future__ import annotations

from collections.abc import Sequence

Span = tuple[int, int]  # first step or row, and number of steps or rows


class KeptPlaces:
    """Places of an epoch's rows in its order, without the rows that were skipped.

    Rows after a skipped span move up. Since `Trainer` takes the same number of steps in each epoch, the
    end of the epoch is filled with its kept rows, from the first one on.

    Args:
        count: number of rows in the order.
        skipped: spans of rows, the oldest rollback first. Each counts rows as they were trained when it
            happened: without the spans before it.
    """

    def __init__(self, count: int, skipped: Sequence[Span]) -> None:
        self._count, self._skipped = count, skipped
        self._kept = count
        for first, rows in skipped:
            self._kept -= max(0, min(rows, self._kept - first))

    def __getitem__(self, row: int) -> int:
        """The place of the epoch's row `row`, which may be `count` or more."""
        place = self._moved(row)
        if place < self._count:
            return place
        repeated = place - self._count
        if not self._kept:  # the whole epoch was skipped, and there is nothing else to train on
            return repeated % self._count
        return self._moved(repeated % self._kept)

    def _moved(self, row: int) -> int:
        for first, rows in reversed(self._skipped):
            if row >= first:
                row += rows
        return row


def spans_in_epoch(spans: Sequence[Span], epoch: int, steps: int) -> list[Span]:
    """The parts of spans of a run's steps that are in an epoch, counted from its beginning.

    Args:
        steps: number of steps in each epoch.
    """
    start = epoch * steps
    parts = ((max(first, start), min(first + count, start + steps)) for first, count in spans)
    return [(first - start, end - first) for first, end in parts if first < end]
