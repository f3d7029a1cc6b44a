"""Hash of the files that sources read, which identifies a stage's input `data`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from ..hashes import hash_of_files
from ..settings import Source
from .comparison_formats import SELF_INSTRUCT, self_instruct_files
from .files import data_files
from .records import locate


def data_hash(sources: Sequence[Source], root: Path) -> str:
    """Returns a hash of the files below `root` that the sources read; follows links, ignores all other files.

    A data set on the Hub has no part in it: its name is in the settings. Raises DataError if a source is
    missing.
    """
    return hash_of_files(dict(file for source in sources for file in _named(source, root)))


def file_states(reads: Iterable[tuple[Sequence[Source], Path]]) -> dict[str, list[int]]:
    """Size and time of change (ns) of each file that sources read below their root, by name.

    They show at once whether rows that were read before are outdated. A data set on the Hub has none. Raises
    DataError if a source is missing.
    """
    files = (file for sources, root in reads for source in sources for file in _named(source, root))
    states = ((name, path.stat()) for name, path in files)
    return {name: [state.st_size, state.st_mtime_ns] for name, state in states}


def _named(source: Source, root: Path) -> Iterator[tuple[str, Path]]:
    """Yields the files of a source with names that don't depend on the root's location."""
    place = locate(source, root)
    for path in files_of(source, root):
        yield f"{source.path}/{path.relative_to(place).as_posix()}", path


def files_of(source: Source, root: Path) -> list[Path]:
    """Returns the local files of a source, none for a data set on the Hub. Raises DataError as readers do."""
    if source.format == SELF_INSTRUCT:
        return self_instruct_files(source, root)
    place = locate(source, root)
    return [] if isinstance(place, str) else data_files(place, source.split)
