"""Searches the parts of the training text one after the other; an interrupted search resumes at its shard."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from ..console import progress
from .index import SampleIndex
from .matches import Matches
from .parts import Origins, Part
from .search import search

STATE = "matches.npz"


class Scan:
    """The matches of all samples in the parts that were searched so far.

    Args:
        threads: number of threads that search.
        folder: folder of the state from which a search of a corpus resumes.

    Attributes:
        matches: longest spans; their documents are numbered in the order of the parts.
        origins: where these documents are from.
    """

    def __init__(self, index: SampleIndex, threads: int, folder: Path) -> None:
        self._index, self._threads, self._state = index, threads, folder / STATE
        self.matches = Matches.none(len(index.tokens))
        self.origins = Origins()

    def search_shards(self, parts: Sequence[Part]) -> dict[str, int]:
        """Searches a corpus, before any rows. Returns the numbers of its `documents` and `tokens`."""
        finished = self._load()
        for part in parts[:finished]:
            self.origins.add(part)
        done, total = (sum(part.tokens for part in some) / 1e6 for some in (parts[:finished], parts))
        with progress("searching the corpus", total, "million tokens", done=done) as advance:
            for number, part in enumerate(parts[finished:], start=finished + 1):
                self._search(part, lambda tokens: advance(tokens / 1e6))
                self._save(number)
        return {
            "documents": sum(part.documents for part in parts),
            "tokens": sum(part.tokens for part in parts),
        }

    def search_rows(self, parts: Iterable[Part]) -> dict[str, int]:
        """Searches batches of rows. Returns the numbers of `documents` and `tokens`."""
        counts = {"documents": 0, "tokens": 0}
        with progress("searching training rows", None, "rows") as advance:
            for part in parts:
                self._search(part)
                advance(part.documents)
                counts["documents"] += part.documents
                counts["tokens"] += part.tokens
        return counts

    def _search(self, part: Part, advance: Callable[[int], None] = lambda tokens: None) -> None:
        search(
            self._index,
            part.load(),
            self.matches,
            threads=self._threads,
            first_document=self.origins.documents,
            advance=advance,
        )
        self.origins.add(part)

    def _load(self) -> int:
        """Loads the matches of an interrupted search; returns the number of its finished shards."""
        if not self._state.is_file():
            return 0
        with np.load(self._state) as state:
            self.matches = Matches(state["lengths"], state["documents"])
            return int(state["shards"])

    def _save(self, shards: int) -> None:
        self._state.parent.mkdir(parents=True, exist_ok=True)
        temporary = self._state.with_name(f"tmp-{STATE}")
        np.savez(temporary, lengths=self.matches.lengths, documents=self.matches.documents, shards=shards)
        temporary.replace(self._state)
