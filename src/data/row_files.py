"""Rows that one process makes and every rank maps: folders of Arrow files, written in parts and sealed.

A folder contains `part-00000.arrow`, … (Arrow streams, in order), `making.json` (identity of the rows) and
`rows.json`, the seal, which is written last: {"identity", "parts": {file: bytes}, "facts"}. A part is
written under a temporary name and then renamed, so a process that is killed resumes after its last complete
part. Without a seal, or with that of other rows, nothing is read.
"""

from __future__ import annotations

import json
import os
import shutil
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from itertools import accumulate, chain, islice
from pathlib import Path
from typing import Any, TypeVar

import datasets
import numpy as np
import pyarrow as pa

from ..artifact import RESUME, write_json
from ..console import say
from ..distributed import group
from ..hashes import digest
from ..processes import is_main_process

T = TypeVar("T")

IDS = pa.list_(pa.int32())  # type of a column of token ids
ROWS = f"{RESUME}/rows"  # below a stage's folder: never published, and kept when a stage resumes
SEAL, MAKING = "rows.json", "making.json"
TEMPORARY = "part.tmp"
VERSION = 1  # of the files; to be raised when their contents change
BATCH_ROWS = 1_000  # rows that are encoded together, and those of a record batch
PART_BATCHES = 50  # record batches of a part: a process that is killed loses at most one part

Columns = Mapping[str, Any]  # values of each column, of equal length


def make_once(phase: str, make: Callable[[], None]) -> None:
    """Runs `make` on the main process while the other ranks wait. `phase` names the work in messages."""
    if is_main_process():
        make()
    group.barrier()


class RowFolder:
    """A folder of rows with a schema and an identity: the settings and the tokenizer that they depend on."""

    def __init__(self, folder: Path, schema: pa.Schema, identity: Mapping[str, Any]) -> None:
        self.folder, self._schema = folder, schema
        self._identity = digest({"version": VERSION, "schema": str(schema), **identity})

    def facts(self) -> dict[str, Any] | None:
        """What `write` was given as facts, or None if the rows are not complete or have another identity."""
        seal = _json(self.folder / SEAL)
        if seal.get("identity") != self._identity:
            return None
        for name, size in seal["parts"].items():
            path = self.folder / name
            found = path.stat().st_size if path.is_file() else 0
            if found != size:
                say(f"{path}: {found:,} bytes, expected {size:,}; the rows are made again")
                return None
        facts: dict[str, Any] = seal["facts"]
        return facts

    def write(
        self,
        batches: Callable[[int], Iterable[Columns]],
        facts: Callable[[], Mapping[str, Any]] = dict,
        *,
        resume: bool = True,
    ) -> None:
        """Writes the rows and seals the folder; must be called by one process only.

        Args:
            batches: called with the number of rows that exist already; yields the columns of the rows after
                them, `BATCH_ROWS` at a time.
            facts: called after the last row; JSON that `facts` returns later.
            resume: whether complete parts of a process that was killed are used.
        """
        with suppress(FileNotFoundError):
            (self.folder / SEAL).unlink()
        if not resume or _json(self.folder / MAKING).get("identity") != self._identity:
            shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(self.folder / MAKING, {"identity": self._identity})
        finished = list(self._finished())
        rows = sum(_mapped(path).num_rows for path in finished)
        remaining = iter(batches(rows))
        for number, first in enumerate(remaining, len(finished)):
            self._write_part(number, chain([first], islice(remaining, PART_BATCHES - 1)))
        if not any(self._finished()):
            self._write_part(0, ())  # for the columns of no rows
        sizes = {path.name: path.stat().st_size for path in self._finished()}
        seal = {"identity": self._identity, "parts": sizes, "facts": facts()}
        write_json(self.folder / SEAL, seal)

    def open(self) -> datasets.Dataset:
        """The rows, memory-mapped: nothing is read before a row or column is used."""
        parts = [datasets.Dataset.from_file(str(path)) for path in self._finished()]
        return datasets.concatenate_datasets(parts) if len(parts) > 1 else parts[0]

    def _finished(self) -> Iterator[Path]:
        number = 0
        while (path := self.folder / _part(number)).is_file():
            yield path
            number += 1

    def _write_part(self, number: int, part: Iterable[Columns]) -> None:
        temporary = self.folder / TEMPORARY
        with temporary.open("wb") as file:
            with pa.ipc.new_stream(file, self._schema) as stream:
                for columns in part:
                    stream.write_batch(pa.RecordBatch.from_pydict(dict(columns), schema=self._schema))
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(self.folder / _part(number))


def row_batches(rows: Iterable[T], done: int = 0) -> Iterator[list[T]]:
    """Splits rows, without the first `done`, into lists of `BATCH_ROWS`."""
    remaining = islice(rows, done, None)
    while batch := list(islice(remaining, BATCH_ROWS)):
        yield batch


def column(rows: datasets.Dataset, name: str) -> pa.ChunkedArray:
    """A column of mapped rows that are not a selection of others."""
    return rows.data.column(name)


class IdLists:
    """A column of token ids: each row's ids are an int32 view into the mapped file.

    Attributes:
        lengths: number of ids of each row, int32 `[rows]`; for them no ids are read.
    """

    def __init__(self, lists: pa.ChunkedArray) -> None:
        # zero-copy, and only where a file has rows
        self._chunks = [(one.offsets.to_numpy(), one.values.to_numpy()) for one in lists.chunks if len(one)]
        self._ends = list(accumulate(len(offsets) - 1 for offsets, _ in self._chunks))
        lengths = [np.diff(offsets) for offsets, _ in self._chunks]
        self.lengths = np.concatenate([np.zeros(0, dtype=np.int32), *lengths])

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: int) -> np.ndarray:
        chunk = bisect_right(self._ends, index)
        offsets, values = self._chunks[chunk]
        row = index - self._ends[chunk] + len(offsets) - 1
        return values[offsets[row] : offsets[row + 1]]


def _part(number: int) -> str:
    return f"part-{number:05}.arrow"


def _mapped(path: Path) -> pa.Table:
    with pa.memory_map(str(path)) as source:
        return pa.ipc.open_stream(source).read_all()


def _json(path: Path) -> dict[str, Any]:
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return stored if isinstance(stored, dict) else {}
