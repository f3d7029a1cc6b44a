"""Which files sources read, and a hash of them: what a stage's input `data` is known by."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from ..hashes import hash_of_files
from ..settings import Source
from .comparison_formats import SELF_INSTRUCT, self_instruct_files
from .files import data_files
from .records import locate


def data_hash(sources: Sequence[Source], root: Path) -> str:
    """Hash of all files that the sources read, links followed, and of nothing else below `root`.

    A set on the Hub is known by its name, which is among the settings. Raises DataError where a source is
    missing.
    """
    return hash_of_files(dict(file for source in sources for file in _named(source, root)))


def _named(source: Source, root: Path) -> Iterator[tuple[str, Path]]:
    """Files with names that don't depend on where the root is."""
    place = locate(source, root)
    for path in files_of(source, root):
        yield f"{source.path}/{path.relative_to(place).as_posix()}", path


def files_of(source: Source, root: Path) -> list[Path]:
    """The local files that a source reads, none for a set on the Hub. Raises DataError as readers do."""
    if source.format == SELF_INSTRUCT:
        return self_instruct_files(source, root)
    place = locate(source, root)
    return [] if isinstance(place, str) else data_files(place, source.split)
