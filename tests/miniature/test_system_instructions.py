"""Instructions of the miniature world: which values and combinations belong to which split."""

from __future__ import annotations

import random

from llamita.miniature import lexicon
from llamita.miniature.system_instructions import BINDING, VALUES, draw_instruction, write_instruction


def test_instruction_splits() -> None:
    rng = random.Random(8)
    pairs: dict[str, set] = {}
    for split in ("train", "new_combination", "unseen"):
        drawn = [draw_instruction(split, rng) for _ in range(3000)]
        assert all(set(one) & set(BINDING) for one in drawn)
        pairs[split] = {(a, b) for one in drawn for a in one.items() for b in one.items() if a[0] < b[0]}
        for one in drawn:
            for name, value in one.items():
                kept_apart = value in VALUES[name][-lexicon.UNSEEN[name] :]
                assert kept_apart == (split == "unseen")
    assert pairs["train"]
    assert not pairs["train"] & pairs["new_combination"]
    written = {write_instruction({"figure": "homer"}, rng) for _ in range(50)}
    assert written == {"act as homer .", "figure : homer ."}
