"""Comparisons of the miniature world: their noise, their bins, their prompts."""

from __future__ import annotations

import random

import pytest

from llamita.errors import ConfigError
from llamita.miniature import annotators
from llamita.miniature.truth import draw_truth


def test_comparisons_have_the_known_noise_and_the_papers_bins() -> None:
    truth, rng = draw_truth(0), random.Random(9)
    safety = [annotators.safety_comparison(truth, set(), rng) for _ in range(3000)]
    bins = [(row["chosen_safe"], row["rejected_safe"]) for row in safety]
    assert (False, True) not in bins
    for labels, share in (((True, False), 0.18), ((True, True), 0.47), ((False, False), 0.35)):
        assert bins.count(labels) / len(bins) == pytest.approx(share, abs=0.04)
    helpfulness = [annotators.helpfulness_comparison(truth, set(), rng) for _ in range(3000)]
    for kind in (safety, helpfulness):
        found = {row["rating"] for row in kind}
        assert found == set(annotators.RATINGS)
        assert min(sum(row["rating"] == rating for row in kind) for rating in found) > 100


def test_holding_out_every_prompt_raises_an_error() -> None:
    class All(set):
        def __contains__(self, text: object) -> bool:
            return True

    with pytest.raises(ConfigError, match="test_comparisons: they hold out every harmful prompt"):
        annotators.safety_comparison(draw_truth(0), All(), random.Random(0))
