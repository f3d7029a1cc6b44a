"""Finds the data files of a path, and the other files in its folder. Paths are never glob patterns."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from ..errors import DataError

KINDS = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".txt": "text",
    ".parquet": "parquet",
}
NAMED = 3  # maximum number of file names per reason in a message


class Files(NamedTuple):
    """The data files of a source, and the names of skipped files in its folder by reason."""

    read: list[Path]
    skipped: dict[str, list[str]]


def data_files(place: Path, split: str) -> list[Path]:
    """Returns the file, or a folder's files whose names contain the split (all files if none does)."""
    return find_files(place, split).read


def find_files(place: Path, split: str) -> Files:
    """Returns `data_files` and the skipped files: hidden and empty ones, other kinds, other splits.

    Raises DataError if there is no data file, or there are several kinds.
    """
    if place.is_file():
        if not kind_of(place):
            raise DataError(
                f"{place}: unknown file type; expected {', '.join(KINDS)}, also with .gz or .zst added "
                "(but for .parquet)"
            )
        return Files([place], {})
    skipped: dict[str, list[str]] = {}

    def skip(reason: str, path: Path) -> None:
        skipped.setdefault(reason, []).append(path.name)

    try:
        below = sorted(_files_below(place, skip))
    except OSError as error:
        raise DataError(f"{error.filename or place}: can't be read: {error.strerror}") from None
    for path in below:
        if not kind_of(path):
            skip("not a data file", path)
        elif not path.stat().st_size:  # for example partitions that Spark writes without rows
            skip("empty", path)
    files = [path for path in below if kind_of(path) and path.stat().st_size]
    split_name = re.compile(rf"(^|[^a-zA-Z]){re.escape(split)}([^a-zA-Z]|$)")
    of_split = {path for path in files if split_name.search(str(path.relative_to(place)))}
    if not of_split and split != "train":
        raise DataError(
            f"{place}: no data file's name contains the split {split!r}; set `path` to a single file, or the "
            "source's `split`, if it has one, to one that exists"
        )
    read = [path for path in files if not of_split or path in of_split]
    for path in files:
        if of_split and path not in of_split:
            skip("of another split", path)
    kinds = {kind_of(path) for path in read}
    if len(kinds) != 1:
        found = ", ".join(sorted(map(str, kinds))) or "none"
        others = f" (skipped: {describe_skipped(skipped)})" if skipped else ""
        raise DataError(
            f"{place}: expected data files of one kind in this folder, found {found}{others}; set `path` to "
            "a single file"
        )
    return Files(read, skipped)


def _files_below(
    folder: Path, skip: Callable[[str, Path], None], parents: tuple[str, ...] = ()
) -> Iterator[Path]:
    """Yields the files below a folder that are not hidden; follows links.

    Hidden are names that begin with a dot (`.ipynb_checkpoints`), and folders that begin with two underscores
    (`__MACOSX`).
    """
    parents = (*parents, os.path.realpath(folder))
    for path in folder.iterdir():
        is_folder = path.is_dir()
        if path.name.startswith((".", "__") if is_folder else "."):
            skip("hidden", path)
        elif is_folder and os.path.realpath(path) not in parents:  # skips links to a parent folder
            yield from _files_below(path, skip, parents)
        elif path.is_file():
            yield path
        elif not path.exists():
            skip("a broken link", path)


def describe_skipped(skipped: dict[str, list[str]]) -> str:
    """Describes the skipped files of a folder for a message."""
    parts = []
    for reason, names in skipped.items():
        more = f" and {len(names) - NAMED:,} more" if len(names) > NAMED else ""
        parts.append(f"{', '.join(sorted(names)[:NAMED])}{more} ({reason})")
    return "; ".join(parts)


def kind_of(path: Path) -> str | None:
    """Returns the kind of a data file by its name, None for other files."""
    name = Path(path.name.lower())
    compressed = name.suffix in (".gz", ".zst")
    kind = KINDS.get(Path(name.stem).suffix if compressed else name.suffix)
    return None if compressed and kind == "parquet" else kind
