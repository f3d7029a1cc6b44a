"""Finds the longest span of each evaluation sample's tokens in a text (section A.6)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from .index import GRAM, SampleIndex

MAX_MISMATCHES = 4
SHORTEST_SPAN = GRAM + 1  # "more than 10 tokens"
CHUNK = 1 << 21  # tokens of the text that a thread searches at a time
BLOCK = 1 << 17
PAIRS = 1 << 20  # pairs of places in samples and text that are compared at a time
PROBE = 16  # tokens that are compared before a pair, to see whether its span may be the longest so far
DOCUMENT_START = -2  # in place of the token before a document's first one


class Text(NamedTuple):
    """Concatenated documents: `tokens` (any unsigned dtype), and the place where each begins (int64)."""

    tokens: np.ndarray
    starts: np.ndarray


@dataclass
class Matches:
    """The longest span that begins at each token of the samples.

    Attributes:
        lengths: number of its tokens, 0 if there is no span, int32 `[tokens of the samples]`.
        documents: number of the first document that contains it, -1 if there is none, int64.
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
        """Adds spans; longer ones replace shorter ones, and of equal ones the first document's remains."""
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


def search(
    index: SampleIndex,
    text: Text,
    matches: Matches,
    *,
    threads: int,
    first_document: int = 0,
    advance: Callable[[int], None] = lambda tokens: None,
) -> None:
    """Adds the spans that the samples share with a text to `matches`.

    A span is a range of more than 10 tokens of one sample and an equally long range of one document, which
    differ in at most four positions, none of them among the first 10 or at the end. The result does not
    depend on the number of threads.

    Args:
        first_document: number of the text's first document in `matches`.
        advance: called with numbers of searched tokens.
    """
    by_thread = [matches.copy() for _ in range(threads)]
    with ThreadPoolExecutor(threads) as pool:
        for first in range(0, len(text.tokens), threads * CHUNK):
            begins = range(first, min(first + threads * CHUNK, len(text.tokens)), CHUNK)
            done = [
                pool.submit(_Chunk(index, text, begin, found, first_document=first_document).search)
                for begin, found in zip(begins, by_thread, strict=False)
            ]
            for future in done:
                advance(future.result())
    for found in by_thread:
        matches.merge(found)


class _Chunk:
    """Search for the spans that begin in one part of a text."""

    def __init__(
        self, index: SampleIndex, text: Text, begin: int, matches: Matches, *, first_document: int
    ) -> None:
        self._index, self._text, self._matches = index, text, matches
        self._begin, self._end = begin, min(begin + CHUNK, len(text.tokens))
        self._first_document = first_document

    def search(self) -> int:
        """Adds the spans to the matches; returns the number of tokens in this part."""
        for begin in range(self._begin, self._end, BLOCK):
            end = min(begin + BLOCK, self._end)
            places, grams = self._index.find(self._text.tokens[begin : end + GRAM - 1])
            for places_in_samples, places_in_text, documents in self._pairs(places + begin, grams):
                self._compare(places_in_samples, places_in_text, documents)
        return self._end - self._begin

    def _pairs(
        self, places: np.ndarray, grams: np.ndarray
    ) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Yields places in samples and text where the same gram begins, with the document, in batches.

        Pairs whose previous tokens match, too, are omitted: a span that begins there is the end of a span
        that begins one token earlier.
        """
        index, text = self._index, self._text
        documents = np.searchsorted(text.starts, places, side="right") - 1
        inside = places + GRAM <= self._document_ends(documents)
        places, grams, documents = places[inside], grams[inside], documents[inside]
        before = text.tokens[np.maximum(places - 1, 0)].astype(np.int64)
        before[places == text.starts[documents]] = DOCUMENT_START
        first, end = index.bounds_of_grams[grams], index.bounds_of_grams[grams + 1]
        skipped, resumed = index.preceded_by(grams, before)
        counts = end - first - (resumed - skipped)
        for part in _parts(counts):
            number = np.repeat(np.arange(part.start, part.stop), counts[part])
            offset = np.arange(len(number)) - np.repeat(np.cumsum(counts[part]) - counts[part], counts[part])
            position = first[number] + offset
            position += np.where(position >= skipped[number], (resumed - skipped)[number], 0)
            yield index.positions[position], places[number], documents[number]

    def _document_ends(self, documents: np.ndarray) -> np.ndarray:
        starts = self._text.starts
        last = documents + 1 == len(starts)
        return np.where(last, len(self._text.tokens), starts[np.where(last, 0, documents + 1)])

    def _compare(self, i: np.ndarray, j: np.ndarray, documents: np.ndarray) -> None:
        """Adds the longest span from each pair of places, `i` in the samples and `j` in the text."""
        limits = np.minimum(self._index.ends[i] - i, self._document_ends(documents) - j)
        hopeful = self._may_be_longer(i, j, limits)
        i, j, documents, limits = i[hopeful], j[hopeful], documents[hopeful], limits[hopeful]
        lengths = self._lengths(i, j, limits)
        long = lengths >= SHORTEST_SPAN
        self._matches.update(i[long], lengths[long], documents[long] + self._first_document)

    def _may_be_longer(self, i: np.ndarray, j: np.ndarray, limits: np.ndarray) -> np.ndarray:
        """Returns the numbers of the pairs that may have a longer span than the longest one from `i` so far.

        Such a span has at most four mismatches in the last tokens of that one and the token after it.
        """
        known = np.maximum(self._matches.lengths[i], GRAM)
        hopeful = np.flatnonzero(known < limits)
        mismatches = np.zeros(len(hopeful), np.int8)
        offsets = known[hopeful]
        for _ in range(PROBE):
            compared = offsets >= GRAM
            differ = self._index.tokens[i[hopeful] + offsets] != self._text.tokens[j[hopeful] + offsets]
            mismatches += differ & compared
            left = mismatches <= MAX_MISMATCHES
            hopeful, mismatches, offsets = hopeful[left], mismatches[left], offsets[left] - 1
            offsets = np.maximum(offsets, GRAM - 1)
        return hopeful

    def _lengths(self, i: np.ndarray, j: np.ndarray, limits: np.ndarray) -> np.ndarray:
        """Returns the length of the longest span from each pair of places, 10 if there is none, int32."""
        lengths = np.full(len(i), GRAM, np.int32)
        mismatches = np.zeros(len(i), np.int8)
        open, offset = np.arange(len(i)), GRAM
        while len(open := open[limits[open] > offset]):
            same = self._index.tokens[i[open] + offset] == self._text.tokens[j[open] + offset]
            offset += 1
            lengths[open[same]] = offset
            mismatches[open[~same]] += 1
            open = open[mismatches[open] <= MAX_MISMATCHES]
        return lengths


def _parts(counts: np.ndarray) -> Iterator[slice]:
    """Splits a list into slices whose counts have a sum of at most `PAIRS`, or that have one element."""
    ends = np.cumsum(counts)
    begin = 0
    while begin < len(counts):
        before = ends[begin - 1] if begin else 0
        end = max(int(np.searchsorted(ends, before + PAIRS, side="right")), begin + 1)
        yield slice(begin, end)
        begin = end
