"""Dialogues of the miniature world."""

from __future__ import annotations

import random

from llamita.miniature import demonstrations
from llamita.miniature.truth import draw_truth


def test_ghost_attention_rows_differ_only_by_the_instruction() -> None:
    truth, rng = draw_truth(0), random.Random(10)
    for _ in range(50):
        kept, plain = demonstrations.ghost_attention(truth, rng)
        assert len(kept["messages"]) == len(plain["messages"])
        assert kept["messages"][::2] == plain["messages"][::2]
        assert kept["messages"][1::2] != plain["messages"][1::2]
        assert 2 <= len(plain["messages"]) / 2 <= demonstrations.LONGEST_GATT_DIALOGUE
