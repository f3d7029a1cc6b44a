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
from contextlib import contextmanager
from dataclasses import dataclass
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

T = TypeVar("T")

IDS = pa.list_(pa.int32())  # type of a column of token ids
ROWS = f"{RESUME}/rows"  # below a stage's folder: never published, and kept when a stage resumes
SEAL, MAKING = "rows.json", "making.json"
TEMPORARY = "part.tmp"
VERSION = 1  # of the files; to be raised when their contents change
BATCH_ROWS = 1_000  # rows that are encoded together, and those of a record batch
PART_BATCHES = 50  # record batches of a part: a process that is killed loses at most one part

Columns = Mapping[str, Any]  # values of each column, of equal length


@dataclass(frozen=True)
class SealedRows:
    """Complete rows in a folder.

    Attributes:
        folder: the folder.
        parts: names and sizes in bytes of its parts, in order.
        facts: what `RowFolder.write` was given as facts.
    """

    folder: Path
    parts: dict[str, int]
    facts: dict[str, Any]

    def open(self) -> datasets.Dataset:
        """The rows, memory-mapped: nothing is read before a row or column is used."""
        paths = [self.folder / name for name in self.parts]
        for path in paths:
            group.wait_until_visible(path)
        parts = [datasets.Dataset.from_file(str(path)) for path in paths]
        return datasets.concatenate_datasets(parts) if len(parts) > 1 else parts[0]


class RowFolder:
    """A folder of rows with a schema and an identity; only the main process looks into it.

    `identity`: the settings and the tokenizer that the rows depend on, as JSON. Rows of another identity are
    not used.
    """

    def __init__(self, folder: Path, schema: pa.Schema, identity: Mapping[str, Any]) -> None:
        self._folder, self._schema = folder, schema
        self._identity = digest({"version": VERSION, "schema": str(schema), **identity})

    def sealed(self) -> SealedRows | None:
        """The rows, or None if they are not complete or have another identity."""
        seal = _json(self._folder / SEAL)
        if seal.get("identity") != self._identity:
            return None
        if (found := self._parts()) != seal["parts"]:
            say(f"{self._folder}: found {found}, expected {seal['parts']} (bytes); making the rows again")
            return None
        return SealedRows(self._folder, found, seal["facts"])

    def write(
        self,
        batches: Callable[[int], Iterable[Columns]],
        facts: Callable[[], Mapping[str, Any]] = dict,
        *,
        resume: bool = True,
    ) -> SealedRows:
        """Writes the rows and seals the folder.

        Args:
            batches: called with the number of rows that exist already; yields the columns of the rows after
                them, `BATCH_ROWS` at a time.
            facts: called after the last row; JSON that is stored with the rows.
            resume: whether complete parts of a process that was killed are used.
        """
        resume = resume and not (self._folder / SEAL).exists()  # sealed ones are damaged, or of other rows
        if not resume or _json(self._folder / MAKING).get("identity") != self._identity:
            (self._folder / MAKING).unlink(missing_ok=True)  # first: it vouches for parts without a seal
            shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True, exist_ok=True)
        write_json(self._folder / MAKING, {"identity": self._identity})
        finished = list(self._finished())
        remaining = iter(batches(sum(_mapped(path).num_rows for path in finished)))
        for number, first in enumerate(remaining, len(finished)):
            self._write_part(number, chain([first], islice(remaining, PART_BATCHES - 1)))
        if not any(self._finished()):
            self._write_part(0, ())  # for the columns of no rows
        parts, stored = self._parts(), dict(facts())
        write_json(self._folder / SEAL, {"identity": self._identity, "parts": parts, "facts": stored})
        return SealedRows(self._folder, parts, stored)

    def _parts(self) -> dict[str, int]:
        return {path.name: path.stat().st_size for path in self._finished()}

    def _finished(self) -> Iterator[Path]:
        number = 0
        while (path := self._folder / _part(number)).is_file():
            yield path
            number += 1

    def _write_part(self, number: int, part: Iterable[Columns]) -> None:
        temporary = self._folder / TEMPORARY
        with temporary.open("wb") as file:
            with pa.ipc.new_stream(file, self._schema) as stream:
                for columns in part:
                    batch = pa.RecordBatch.from_pydict(dict(columns), schema=self._schema)
                    with _named_errors(temporary):
                        stream.write_batch(batch)
            with _named_errors(temporary):
                file.flush()
                os.fsync(file.fileno())
        temporary.rename(self._folder / _part(number))


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


@contextmanager
def _named_errors(path: Path) -> Iterator[None]:
    """Adds the file to errors such as that of a full disk."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


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
