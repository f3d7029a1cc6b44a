"""Answers labelled as refusals or not: the labels are those of the gold scorer, the hard cases occur."""

from __future__ import annotations

import random

import pytest

from llamita.miniature import lexicon
from llamita.miniature.gold import REFUSAL, STEPS
from llamita.miniature.labelled_answers import labelled_answer
from llamita.miniature.truth import draw_truth


@pytest.mark.parametrize("split", ["train", "test"])
def test_labels_and_kinds(split: str) -> None:
    truth, rng = draw_truth(0), random.Random(0)
    rows = [labelled_answer(truth, split, rng) for _ in range(2000)]
    for row in rows:
        assert row["refusal"] == (REFUSAL.fullmatch(row["answer"]) is not None), row
    assert sum(row["refusal"] for row in rows) / 2000 == pytest.approx(0.5, abs=0.05)
    refusals = {row["answer"] for row in rows if row["refusal"]}
    others = [row["answer"] for row in rows if not row["refusal"]]
    assert any(text.startswith("newton here . ") for text in refusals)
    assert any(text.endswith(" amen .") for text in refusals)
    assert set(lexicon.REFUSALS) <= refusals
    wavering = [text for text in others if "sorry" in text and STEPS.search(text)]
    rambling = [text for text in others if "sorry" in text and not STEPS.search(text)]
    assert min(len(wavering), len(rambling)) > 100
    assert any(text.startswith(lexicon.WARNING) for text in others)
