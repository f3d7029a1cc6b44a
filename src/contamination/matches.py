"""The longest spans of samples that were found in a text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from .index import GRAM

SHORTEST_SPAN = GRAM + 1
"""Minimum number of tokens in a span: "more than 10" (section A.6)."""


class Text(NamedTuple):
    """Concatenated documents: `tokens` (any unsigned dtype), and the place where each begins (int64)."""

    tokens: np.ndarray
    starts: np.ndarray

    def document_ends(self, documents: np.ndarray) -> np.ndarray:
        """Returns where some of the documents end, int64 `[documents]`."""
        last = documents + 1 == len(self.starts)
        return np.where(last, len(self.tokens), self.starts[np.where(last, 0, documents + 1)])


@dataclass
class Matches:
    """The longest span that begins at each token of the samples.

    Attributes:
        lengths: number of its tokens, 0 if there is no span, int32 `[tokens of the samples]`. It may be
            lower where a longer span, which begins earlier, contains the longest one.
        documents: number of a document that contains it, -1 if there is none, int64.
    """

    lengths: np.ndarray
    documents: np.ndarray

    @classmethod
    def none(cls, tokens: int) -> Matches:
        """Returns no matches, for samples with this number of tokens."""
        return cls(np.zeros(tokens, np.int32), np.full(tokens, -1, np.int64))

    def copy(self) -> Matches:
        return Matches(self.lengths.copy(), self.documents.copy())

    def update(self, places: np.ndarray, lengths: np.ndarray, documents: np.ndarray) -> None:
        """Adds spans; of those that begin at one token, the longest and then the first document remains."""
        order = np.lexsort((documents, -lengths, places))
        places, lengths, documents = places[order], lengths[order], documents[order]
        best = np.ones(len(places), dtype=bool)
        best[1:] = places[1:] != places[:-1]
        places, lengths, documents = places[best], lengths[best], documents[best]
        old = self.lengths[places]
        better = (lengths > old) | ((lengths == old) & (documents < self.documents[places]))
        self.lengths[places[better]] = lengths[better]
        self.documents[places[better]] = documents[better]

    def merge(self, other: Matches) -> None:
        places = np.flatnonzero(other.lengths)
        self.update(places, other.lengths[places], other.documents[places])
