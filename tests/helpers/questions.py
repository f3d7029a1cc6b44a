"""User turns of three dialogues of different lengths, as token ids of the tiny model."""

from __future__ import annotations

QUESTIONS = [
    [[1, 5, 6, 7], [1, 8], [1, 9, 10, 11, 12, 13], [1, 14]],
    [[1, 20], [1, 21, 22, 23], [1, 24], [1, 25, 26]],
    [[1, 30, 31], [1, 32, 33]],
]
