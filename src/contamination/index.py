"""The 10-grams of all evaluation samples, with which the tokens of a corpus are looked up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ..errors import DataError

GRAM = 10
"""Number of tokens at the beginning of a span that must match exactly."""

MULTIPLIERS = [pow(0x9E3779B97F4A7C15, power, 1 << 64) for power in (1, 2, 4)]
BITS_PER_GRAM = 16  # of the filter: about 1 of 16 unknown grams passes it
MAX_POSITIONS = 2**31 - 1
SAMPLE_START = -1  # in place of the token before a sample's first one


class Grams(NamedTuple):
    """Grams of a text that are known: `places` (of their first tokens) and `grams` (ids), both int64."""

    places: np.ndarray
    grams: np.ndarray


class SampleIndex:
    """Tokens of all samples in one array, and the places of each different 10-gram in it.

    Args:
        samples: token ids of each sample, below `vocab_size`; a sample may be empty.

    Attributes:
        tokens: all samples' tokens, uint32 `[tokens]`.
        bounds: where samples begin and end in `tokens`, int64 `[samples + 1]`.
        ends: for each token where its sample ends, int64 `[tokens]`.
        positions: places of all 10-grams, sorted by gram and then by the token before them, int64 `[places]`.
        bounds_of_grams: where the positions of each gram begin and end in `positions`, int64 `[grams + 1]`.

    Raises:
        DataError: the samples have more than two billion tokens.
    """

    def __init__(self, samples: Sequence[np.ndarray], vocab_size: int) -> None:
        lengths = np.array([len(sample) for sample in samples], dtype=np.int64)
        self.bounds = np.concatenate(([0], np.cumsum(lengths)))
        if self.bounds[-1] > MAX_POSITIONS:
            raise DataError(
                f"the samples have {self.bounds[-1]:,} tokens; expected at most {MAX_POSITIONS:,}"
            )
        self.tokens = np.concatenate([np.empty(0, np.uint32), *samples]).astype(np.uint32)
        self.ends = np.repeat(self.bounds[1:], lengths)
        places = np.flatnonzero(np.arange(len(self.tokens)) + GRAM <= self.ends)
        seed = 0
        while not self._hash(places, vocab_size, seed):
            seed += 1
        self._sort_by_previous_token()
        self._make_filter()

    def _hash(self, places: np.ndarray, vocab_size: int, seed: int) -> bool:
        """Groups the places by the hash of their gram; returns whether no two different grams collide."""
        generator = np.random.default_rng(seed)
        self._random = generator.integers(1 << 64, size=max(1, vocab_size), dtype=np.uint64)
        hashes = self._hashes(self.tokens)[places]
        self._keys, of_place = np.unique(hashes, return_inverse=True)
        order = np.argsort(of_place, kind="stable")
        self.positions = places[order]
        self._gram_of_position = of_place[order]
        counts = np.bincount(of_place, minlength=len(self._keys))
        self.bounds_of_grams = np.concatenate(([0], np.cumsum(counts)))
        first = self.positions[self.bounds_of_grams[:-1]][self._gram_of_position]
        return all(
            np.array_equal(self.tokens[first + offset], self.tokens[self.positions + offset])
            for offset in range(GRAM)
        )

    def _sort_by_previous_token(self) -> None:
        before = self.tokens[self.positions - 1].astype(np.int64)
        before[np.isin(self.positions, self.bounds)] = SAMPLE_START
        order = np.lexsort((self.positions, before, self._gram_of_position))
        self.positions = self.positions[order]
        self._preceded = _preceded(self._gram_of_position, before[order])

    def _make_filter(self) -> None:
        """Sets one bit for each gram's hash, by which most of the unknown grams are recognized."""
        bits = max(16, (BITS_PER_GRAM * max(1, len(self._keys)) - 1).bit_length())
        self._shift = np.uint64(64 - bits)
        self._filter = np.zeros(1 << (bits - 3), dtype=np.uint8)
        places = (self._keys >> self._shift).astype(np.int64)
        np.bitwise_or.at(self._filter, places >> 3, np.left_shift(1, places & 7).astype(np.uint8))

    def _hashes(self, tokens: np.ndarray) -> np.ndarray:
        """Returns a hash of each 10-gram, uint64 `[max(0, tokens - 9)]`, from those of 2, 4 and 8 tokens."""
        if len(tokens) < GRAM:
            return np.empty(0, np.uint64)
        one, two, four = map(np.uint64, MULTIPLIERS)
        single = self._random[tokens]
        of_2 = single[:-1] * one + single[1:]
        of_4 = of_2[:-2] * two + of_2[2:]
        of_8 = of_4[:-4] * four + of_4[4:]
        return of_8[:-2] * two + of_2[8:]

    def find(self, tokens: np.ndarray, begin: int = 0) -> Grams:
        """Finds all 10-grams of a text that a sample contains.

        Args:
            tokens: ids below `vocab_size`.
            begin: place of the first one, for the places of the grams.
        """
        hashes = self._hashes(tokens)
        places = hashes >> self._shift
        bit = self._filter[places >> np.uint64(3)] >> (places & np.uint64(7)).astype(np.uint8)
        candidates = np.flatnonzero(bit & np.uint8(1))
        if not len(self._keys) or not len(candidates):
            return Grams(np.empty(0, np.int64), np.empty(0, np.int64))
        hashes = hashes[candidates]
        grams = np.minimum(np.searchsorted(self._keys, hashes), len(self._keys) - 1)
        known = self._keys[grams] == hashes
        candidates, grams = candidates[known], grams[known]
        first = self.positions[self.bounds_of_grams[grams]]
        same = np.ones(len(grams), dtype=bool)  # another gram may have the same hash
        for offset in range(GRAM):
            same &= self.tokens[first + offset] == tokens[candidates + offset]
        return Grams(candidates[same] + begin, grams[same])

    def preceded_by(self, grams: np.ndarray, before: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns the range in `positions` of each gram's places that follow the token `before` (int64).

        If there are none, the range is empty and at the end of the gram's places.
        """
        wanted = _preceded(grams, before)
        begin = np.searchsorted(self._preceded, wanted)
        end = np.searchsorted(self._preceded, wanted, side="right")
        return np.where(begin == end, self.bounds_of_grams[grams + 1], begin), np.where(
            begin == end, self.bounds_of_grams[grams + 1], end
        )


def _preceded(grams: np.ndarray, before: np.ndarray) -> np.ndarray:
    """Returns one sortable number for each gram and the token before it (at least -2), int64."""
    return (grams << 33) + before + 2
