"""Dialogues and comparisons as JSON in Arrow files: read and checked once, then decoded one by one."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, TypeVar, overload

import datasets
import pyarrow as pa

from ..console import track
from ..distributed import group
from ..settings import Source
from .held_out import hash_fraction, opening
from .intake import Intake
from .row_files import RowFolder, SealedRows, row_batches
from .source_hash import file_states

T = TypeVar("T")

# `fraction`: `hash_fraction` of the row's opening (see held_out.py), which is the same for the same prompt
SCHEMA = pa.schema({"row": pa.large_string(), "fraction": pa.float64()})


class LazySequence(Sequence[T]):
    """A sequence whose elements are made when they are used; slices are lists."""

    def __len__(self) -> int:
        raise NotImplementedError

    def element(self, index: int) -> T:
        """Makes the element at `index`, which is not negative."""
        raise NotImplementedError

    @overload
    def __getitem__(self, index: int) -> T: ...

    @overload
    def __getitem__(self, index: slice) -> list[T]: ...

    def __getitem__(self, index: int | slice) -> T | list[T]:
        if isinstance(index, slice):
            return [self.element(place) for place in range(*index.indices(len(self)))]
        place = range(len(self))[index]  # raises IndexError, counts negative ones from the end
        return self.element(place)

    def __iter__(self) -> Iterator[T]:
        return map(self.element, range(len(self)))


class StoredRows(LazySequence[T]):
    """Rows that `store_rows` wrote.

    Attributes:
        rows: the mapped rows, with the columns of `SCHEMA`.
        identity: of the rows: that of `store_rows`, states of the sources' files, sizes of their own.
    """

    def __init__(self, rows: datasets.Dataset, kind: Callable[..., T], identity: Mapping[str, Any]) -> None:
        self.rows, self.identity, self._kind = rows, identity, kind

    def __len__(self) -> int:
        return len(self.rows)

    def element(self, index: int) -> T:
        return self._kind(**json.loads(self.rows[index]["row"]))

    def __iter__(self) -> Iterator[T]:
        for batch in self.rows.select_columns("row").iter(1_000):
            yield from (self._kind(**json.loads(row)) for row in batch["row"])


class Joined(LazySequence[T]):
    """Several sequences, one after the other."""

    def __init__(self, *parts: Sequence[T]) -> None:
        self._parts, self._ends = parts, list(accumulate(map(len, parts)))

    def __len__(self) -> int:
        return self._ends[-1]

    def element(self, index: int) -> T:
        part = bisect_right(self._ends, index)
        return self._parts[part][index - self._ends[part] + len(self._parts[part])]


def store_rows(
    folder: Path,
    kind: Callable[..., T],
    groups: Mapping[str, Callable[[Intake], Iterable[T]]],
    *,
    identity: Mapping[str, Any],
    sources: Iterable[tuple[Sequence[Source], Path]],
    intake: Intake,
    seed: int | None = None,
) -> tuple[StoredRows[T], dict[str, range]]:
    """Reads rows once, on the main process, into `folder`; every rank gets them, mapped.

    A reader that is interrupted starts again, because only a complete one has counted all rows.

    Args:
        kind: the rows' dataclass.
        groups: readers of rows by name, which are called in order.
        identity: what the rows depend on besides files, see `RowFolder`.
        sources: what the readers read, with its root; rows are read again if one of the files has changed.
        intake: where the main process counts rows; the other ranks and a resumed stage get its counts.
        seed: seed of the column `fraction`; None: it is empty.

    Returns:
        the rows, and the indices of each group.
    """
    sizes: dict[str, int] = dict.fromkeys(groups, 0)

    def read() -> Iterator[T]:
        for name, rows in groups.items():
            for row in rows(intake):
                sizes[name] += 1
                yield row

    def columns(rows: Sequence[T]) -> dict[str, list[Any]]:
        return {
            "row": [json.dumps(vars(row)) for row in rows],
            "fraction": [None if seed is None else hash_fraction(opening(row), seed) for row in rows],
        }

    def make() -> tuple[SealedRows, dict[str, list[int]]]:
        states = file_states(sources)
        made_of = {**identity, "files": states, "max_bad_rows": intake.max_bad_rows}
        files = RowFolder(folder, SCHEMA, made_of)
        batches = map(columns, row_batches(track(read(), "reading rows", unit="rows")))
        rows = files.sealed() or files.write(
            lambda _: batches, lambda: {"sizes": sizes, "intake": intake.state()}, resume=False
        )
        return rows, states

    sealed, states = group.once("reading rows", make)
    intake.restore(sealed.facts["intake"])
    counts: dict[str, int] = sealed.facts["sizes"]
    ends = dict(zip(counts, accumulate(counts.values()), strict=True))
    ranges = {name: range(end - counts[name], end) for name, end in ends.items()}
    return StoredRows(sealed.open(), kind, {**identity, "files": states, "parts": sealed.parts}), ranges
