"""Which data files a path stands for, and what else is in its folder. No path is a pattern."""

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
NAMED = 3  # files that are not read of a folder are named up to here


class Files(NamedTuple):
    """The data files of a source, and what else is in its folder: reason -> names below it."""

    read: list[Path]
    left_out: dict[str, list[str]]


def data_files(place: Path, split: str) -> list[Path]:
    """A single file, or the files below a folder whose names say the split (all, if none does)."""
    return find_files(place, split).read


def find_files(place: Path, split: str) -> Files:
    """`data_files`, with what is left out: hidden and empty files, other kinds of files, other splits.

    Raises DataError where there is none, or files of several kinds.
    """
    if place.is_file():
        if not kind_of(place):
            raise DataError(
                f"{place}: unknown kind of file; expected {', '.join(KINDS)}, text also with .gz or .zst"
            )
        return Files([place], {})
    left_out: dict[str, list[str]] = {}

    def leave_out(reason: str, path: Path) -> None:
        left_out.setdefault(reason, []).append(path.name)

    try:
        below = sorted(_below(place, leave_out))
    except OSError as error:
        raise DataError(f"{error.filename or place}: can't be read: {error.strerror}") from None
    for path in below:
        if not kind_of(path):
            leave_out("no data file", path)
        elif not path.stat().st_size:  # as the parts that Spark writes without rows
            leave_out("empty", path)
    files = [path for path in below if kind_of(path) and path.stat().st_size]
    named = re.compile(rf"(^|[^a-zA-Z]){re.escape(split)}([^a-zA-Z]|$)")
    of_split = {path for path in files if named.search(str(path.relative_to(place)))}
    if not of_split and split != "train":
        raise DataError(f"{place}: no file of split {split!r}")
    read = [path for path in files if not of_split or path in of_split]
    for path in files:
        if of_split and path not in of_split:
            leave_out("of another split", path)
    kinds = {kind_of(path) for path in read}
    if len(kinds) != 1:
        found = ", ".join(sorted(map(str, kinds))) or "none"
        others = f" (not read: {described(left_out)})" if left_out else ""
        raise DataError(
            f"{place}: expected data files of one kind in this folder, found {found}{others}; name one file"
        )
    return Files(read, left_out)


def _below(
    folder: Path, leave_out: Callable[[str, Path], None], parents: tuple[str, ...] = ()
) -> Iterator[Path]:
    """The files below a folder, links followed, but for hidden ones.

    Hidden are names that begin with a dot (`.ipynb_checkpoints`), and folders that begin with two underscores
    (`__MACOSX`).
    """
    parents = (*parents, os.path.realpath(folder))
    for path in folder.iterdir():
        is_folder = path.is_dir()
        if path.name.startswith((".", "__") if is_folder else "."):
            leave_out("hidden", path)
        elif is_folder and os.path.realpath(path) not in parents:  # no link to a folder that holds it
            yield from _below(path, leave_out, parents)
        elif path.is_file():
            yield path
        elif not path.exists():
            leave_out("a link to nothing", path)


def described(left_out: dict[str, list[str]]) -> str:
    """What is left out of a folder, in words."""
    parts = []
    for reason, names in left_out.items():
        more = f" and {len(names) - NAMED:,} more" if len(names) > NAMED else ""
        parts.append(f"{', '.join(sorted(names)[:NAMED])}{more} ({reason})")
    return "; ".join(parts)


def kind_of(path: Path) -> str | None:
    """The kind of a data file by its name, None for any other file."""
    name = Path(path.name.lower())
    packed = name.suffix in (".gz", ".zst")
    kind = KINDS.get(Path(name.stem).suffix if packed else name.suffix)
    return None if packed and kind == "parquet" else kind
