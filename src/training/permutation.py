"""A shuffle that is computed, not stored: the item at any place takes constant time and memory."""

from __future__ import annotations

import hashlib
from functools import lru_cache

ROUNDS = 6
WORD = (1 << 64) - 1


class Permutation:
    """The numbers 0 … `count` - 1 in a random order determined by `key`: `permutation[place]`.

    A Feistel network (Luby and Rackoff, 1988) shuffles the smallest power of four that is not below `count`.
    Results from `count` on are shuffled again, fewer than four times on average (cycle walking).
    """

    def __init__(self, count: int, key: str) -> None:
        self._count = count
        self._half = max(1, ((count - 1).bit_length() + 1) // 2)  # bits
        digest = hashlib.blake2b(key.encode(), digest_size=8 * ROUNDS).digest()
        self._keys = [int.from_bytes(digest[at : at + 8], "little") for at in range(0, 8 * ROUNDS, 8)]

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, place: int) -> int:
        if not 0 <= place < self._count:
            raise IndexError(place)
        number = self._shuffled(place)
        while number >= self._count:
            number = self._shuffled(number)
        return number

    def _shuffled(self, number: int) -> int:
        mask = (1 << self._half) - 1
        left, right = number >> self._half, number & mask
        for key in self._keys:
            left, right = right, left ^ (_mixed(right ^ key) & mask)
        return left << self._half | right


def _mixed(word: int) -> int:
    """Mixes 64 bits so that each depends on all others (the finalizer of splitmix64)."""
    word = (word ^ word >> 30) * 0xBF58476D1CE4E5B9 & WORD
    word = (word ^ word >> 27) * 0x94D049BB133111EB & WORD
    return word ^ word >> 31


permutation = lru_cache(maxsize=64)(Permutation)


class Epochs:
    """An endless sequence of epochs, each with all `count` items in a different order: `epochs[place]`."""

    def __init__(self, count: int, seed: int | str) -> None:
        self._count, self._seed = count, seed

    def __getitem__(self, place: int) -> int:
        epoch, place = divmod(place, self._count)
        return permutation(self._count, f"{self._seed}/epoch/{epoch}")[place]
