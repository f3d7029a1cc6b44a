"""Searches one part of a text: looks up its 10-grams, and compares what follows with the samples."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from .index import GRAM, SampleIndex
from .matches import SHORTEST_SPAN, Matches, Text

MAX_MISMATCHES = 4
BLOCK = 1 << 16  # tokens that are hashed at a time: their hashes fit into a core's cache
PAIRS = 1 << 20  # pairs of places in samples and text that are compared at a time
PROBE = 8  # tokens before the end of the longest span so far that are compared before a whole pair
FREQUENT = 512  # hits of one gram that are probed together, which is faster from about this number on
TOGETHER = 1 << 14  # maximum number of such hits: the tokens at one offset from them fit into a core's cache
DOCUMENT_START = -2  # in place of the token before a document's first one


class _Hits(NamedTuple):
    """Places in the text where a gram of the samples begins, and the samples' places of this gram.

    These are `index.positions[first:end]` without `skipped:resumed`, whose previous token is that of the
    hit, too: a span that begins there is the end of a span that begins one token earlier.
    """

    places: np.ndarray
    documents: np.ndarray
    first: np.ndarray
    end: np.ndarray
    skipped: np.ndarray
    resumed: np.ndarray

    def select(self, chosen: np.ndarray | slice) -> _Hits:
        return _Hits(*(column[chosen] for column in self))

    @property
    def counts(self) -> np.ndarray:
        """Number of the samples' places of each hit."""
        return self.end - self.first - (self.resumed - self.skipped)

    def groups(self) -> np.ndarray:
        """Returns numbers that are equal for hits of the same gram that can be compared together.

        They have the same places, or each of them has at least half of the gram's places: then it is
        compared with all.
        """
        return np.where(2 * self.counts >= self.end - self.first, self.end, self.skipped)


class Chunk:
    """Search for the spans that begin at some tokens of a text, which are added to `matches`.

    Args:
        places: of these tokens.
        first_document: number of the text's first document in `matches`.
    """

    def __init__(
        self, index: SampleIndex, text: Text, places: range, *, matches: Matches, first_document: int
    ) -> None:
        self._index, self._text, self._matches = index, text, matches
        self._places = places
        self._first_document = first_document

    def search(self) -> int:
        """Adds the spans to the matches; returns the number of tokens."""
        hits, frequent = self._hits(), []
        groups = hits.groups()
        by_gram = np.lexsort((hits.places, groups, hits.first))
        changes = np.diff(hits.first[by_gram], prepend=-1) | np.diff(groups[by_gram], prepend=-1)
        starts = np.flatnonzero(changes)
        sizes = np.diff(starts, append=len(by_gram))
        for start, size in zip(starts[sizes > FREQUENT], sizes[sizes > FREQUENT], strict=True):
            frequent.append(by_gram[start : start + size])
            self._compare_frequent(hits.select(frequent[-1]))
        rare = np.ones(len(by_gram), dtype=bool)
        rare[np.concatenate([np.empty(0, np.int64), *frequent])] = False
        self._compare_rare(hits.select(rare))
        return len(self._places)

    def _hits(self) -> _Hits:
        """Returns all hits that have places in the samples left."""
        found = [
            self._index.find(
                self._text.tokens[begin : min(begin + BLOCK, self._places.stop) + GRAM - 1], begin
            )
            for begin in range(self._places.start, self._places.stop, BLOCK)
        ]
        places, grams = (np.concatenate(column) for column in zip(*found, strict=True))
        documents = np.searchsorted(self._text.starts, places, side="right") - 1
        before = self._text.tokens[np.maximum(places - 1, 0)].astype(np.int64)
        before[places == self._text.starts[documents]] = DOCUMENT_START
        first, end = self._index.bounds_of_grams[grams], self._index.bounds_of_grams[grams + 1]
        hits = _Hits(places, documents, first, end, *self._index.preceded_by(grams, before))
        inside = places + GRAM <= self._text.document_ends(documents)
        return hits.select(inside & (hits.counts > 0))

    def _compare_rare(self, hits: _Hits) -> None:
        """Compares the hits with the samples' places, many pairs at a time."""
        counts = hits.counts
        for part in _parts(counts):
            some = hits.select(part)
            number = np.repeat(np.arange(len(some.places)), counts[part])
            offset = np.arange(len(number)) - np.repeat(np.cumsum(counts[part]) - counts[part], counts[part])
            position = some.first[number] + offset
            position += np.where(position >= some.skipped[number], (some.resumed - some.skipped)[number], 0)
            self._compare(self._index.positions[position], some.places[number], some.documents[number])

    def _compare_frequent(self, hits: _Hits) -> None:
        """Compares hits of the same gram with the samples' places, one of these places at a time."""
        first, end, skipped, resumed = (int(column[0]) for column in hits[2:])
        if hits.groups()[0] == end:
            skipped = resumed = end
        positions = np.concatenate((self._index.positions[first:skipped], self._index.positions[resumed:end]))
        if not self._matches.lengths[positions].all():
            # the spans of the first hits are so long that few of the other hits can have longer ones
            self._compare_rare(hits.select(slice(FREQUENT)))
            hits = hits.select(slice(FREQUENT, None))
        for start in range(0, len(hits.places), TOGETHER):
            some = hits.select(slice(start, start + TOGETHER))
            for i, numbers in self._hopeful(positions, some):
                self._extend(i, some.places[numbers], documents=some.documents[numbers])

    def _hopeful(self, positions: np.ndarray, hits: _Hits) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields pairs whose spans may be the longest so far: places in samples and numbers of hits."""
        rooms = self._text.document_ends(hits.documents) - hits.places
        columns: dict[int, np.ndarray] = {}  # offset from the hits -> the tokens there
        found: list[tuple[np.ndarray, np.ndarray]] = []
        count = 0
        for i in positions.tolist():
            known = max(int(self._matches.lengths[i]), GRAM)
            room = int(self._index.ends[i]) - i
            if known >= room:
                continue
            mismatches = np.zeros(len(hits.places), np.uint8)
            longer = np.zeros(len(hits.places), dtype=bool)
            for offset in range(max(known - PROBE, GRAM), min(known + MAX_MISMATCHES + 1, room)):
                if offset not in columns:
                    inside = np.minimum(hits.places + offset, len(self._text.tokens) - 1)
                    columns[offset] = self._text.tokens[inside]
                differ = columns[offset] != self._index.tokens[i + offset]
                if offset >= known:
                    longer |= (mismatches <= MAX_MISMATCHES) & ~differ & (offset < rooms)
                mismatches += differ
            numbers = np.flatnonzero(longer)
            found.append((np.full(len(numbers), i), numbers))
            count += len(numbers)
            if count >= PAIRS:
                yield _joined(found)
                found, count = [], 0
        if found:
            yield _joined(found)

    def _compare(self, i: np.ndarray, j: np.ndarray, documents: np.ndarray) -> None:
        """Adds the longest span from each pair of places, `i` in the samples and `j` in the text."""
        hopeful = self._may_be_longer(i, j, self._limits(i, j, documents))
        self._extend(i[hopeful], j[hopeful], documents=documents[hopeful])

    def _limits(self, i: np.ndarray, j: np.ndarray, documents: np.ndarray) -> np.ndarray:
        """Returns how many tokens of sample and document there are from each pair of places."""
        return np.minimum(self._index.ends[i] - i, self._text.document_ends(documents) - j)

    def _extend(self, i: np.ndarray, j: np.ndarray, *, documents: np.ndarray) -> None:
        lengths = self._lengths(i, j, self._limits(i, j, documents))
        long = lengths >= SHORTEST_SPAN
        self._matches.update(i[long], lengths[long], documents[long] + self._first_document)

    def _may_be_longer(self, i: np.ndarray, j: np.ndarray, limits: np.ndarray) -> np.ndarray:
        """Returns the numbers of the pairs that may have a longer span than the longest one from `i` so far.

        A longer one matches after the end of that one, with at most four mismatches before.
        """
        known = np.maximum(self._matches.lengths[i], GRAM)
        pairs = np.flatnonzero(known < limits)
        mismatches = np.zeros(len(pairs), np.int8)
        for back in range(1, PROBE + 1):
            offsets = np.maximum(known[pairs] - back, 0)  # the first ten tokens match
            mismatches += self._index.tokens[i[pairs] + offsets] != self._text.tokens[j[pairs] + offsets]
            left = mismatches <= MAX_MISMATCHES
            pairs, mismatches = pairs[left], mismatches[left]
        longer = [np.empty(0, np.int64)]
        for ahead in range(MAX_MISMATCHES + 1):
            offsets = known[pairs] + ahead
            inside = offsets < limits[pairs]
            pairs, offsets, mismatches = pairs[inside], offsets[inside], mismatches[inside] + 1
            same = self._index.tokens[i[pairs] + offsets] == self._text.tokens[j[pairs] + offsets]
            longer.append(pairs[same])
            left = ~same & (mismatches <= MAX_MISMATCHES)
            pairs, mismatches = pairs[left], mismatches[left]
        return np.concatenate(longer)

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


def _joined(pairs: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    first, second = zip(*pairs, strict=True)
    return np.concatenate(first), np.concatenate(second)


def _parts(counts: np.ndarray) -> Iterator[slice]:
    """Splits a list into slices whose counts have a sum of at most `PAIRS`, or that have one element."""
    ends = np.cumsum(counts)
    begin = 0
    while begin < len(counts):
        before = ends[begin - 1] if begin else 0
        end = max(int(np.searchsorted(ends, before + PAIRS, side="right")), begin + 1)
        yield slice(begin, end)
        begin = end
