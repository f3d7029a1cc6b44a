"""Metrics of context distillation on outcomes that are counted by hand."""

from __future__ import annotations

import math

import pytest

from llamita.data.rows import Prompt
from llamita.distillation.gate import Answer, Outcome
from llamita.distillation.metrics import bin_of, distillation_metrics
from llamita.distillation.prompts import DistilledPrompt

from ..helpers.rows import turn

KEPT = {"original": 0.12, "generic": 0.3, "tailored": 0.92}
WORSE = {"original": 0.97, "generic": 0.9, "tailored": 0.77}
GENERIC = {"original": 0.13, "generic": 0.53}
UNUSABLE = {"original": 1.0, "generic": 0.2}


def outcome(scores: dict[str, float], category: str | None, usable: bool = True) -> Outcome:
    prompt = DistilledPrompt(Prompt(turn("how ?"), is_safety=True, category=category), {}, {})
    return Outcome(
        prompt,
        {kind: Answer("no", usable or kind == "original", score) for kind, score in scores.items()},
    )


OUTCOMES = [
    outcome(KEPT, "illicit"),
    outcome(WORSE, "illicit"),
    outcome(GENERIC, None),
    outcome(UNUSABLE, "hateful", usable=False),
]


def test_shares_kept_by_category_and_by_preprompt() -> None:
    metrics = distillation_metrics(OUTCOMES)
    assert (metrics["prompts"], metrics["kept"], metrics["kept_share"]) == (4, 2, 0.5)
    assert metrics["kept_share_se"] == pytest.approx(math.sqrt(1 / 3) / 2)
    assert metrics["ungated"] == 3
    shares = {name: (one["prompts"], one["kept"]) for name, one in metrics["by_category"].items()}
    assert shares == {"hateful": (1, 0), "illicit": (2, 1), "none": (1, 1)}
    shares = {name: (one["prompts"], one["kept"]) for name, one in metrics["by_preprompt"].items()}
    assert shares == {"generic": (1, 1), "tailored": (2, 1)}
    assert metrics["usable"] == {"original": 1.0, "generic": 0.75, "tailored": 1.0}


def test_scores_before_and_after_are_paired() -> None:
    metrics = distillation_metrics(OUTCOMES)
    means = {name: (one["prompts"], one["score"]) for name, one in metrics["scores"].items()}
    assert means == {
        "original": (4, pytest.approx((0.12 + 0.97 + 0.13 + 1.0) / 4)),
        "generic": (4, pytest.approx((0.3 + 0.9 + 0.53 + 0.2) / 4)),
        "tailored": (2, pytest.approx((0.92 + 0.77) / 2)),
        "ungated": (4, pytest.approx((0.92 + 0.77 + 0.53 + 1.0) / 4)),
        "gated": (4, pytest.approx((0.92 + 0.97 + 0.53 + 1.0) / 4)),
    }
    differences = metrics["score_differences"]
    assert differences["tailored"]["prompts"] == 2
    assert differences["tailored"]["difference"] == pytest.approx((0.8 - 0.2) / 2)
    assert differences["tailored"]["difference_se"] == pytest.approx(0.5)
    assert differences["gated"]["difference"] == pytest.approx((0.8 + 0.4) / 4)
    assert differences["ungated"]["difference"] == pytest.approx((0.8 - 0.2 + 0.4) / 4)


def test_histograms_and_changes_by_the_original_score() -> None:
    metrics = distillation_metrics(OUTCOMES)
    original = metrics["score_histograms"]["original"]
    assert len(original) == 20
    assert {index: count for index, count in enumerate(original) if count} == {2: 2, 19: 2}
    assert sum(metrics["score_histograms"]["tailored"]) == 2
    changes = metrics["score_changes"]
    assert [one["count"] for one in changes] == original
    assert (changes[2]["from"], changes[2]["to"], changes[19]["to"]) == (0.1, 0.15, 1.0)
    assert changes[2]["generic"] == pytest.approx((0.18 + 0.4) / 2)
    assert changes[2]["tailored"] == pytest.approx(0.8)
    assert changes[2]["tailored_se"] is None, "one prompt has no error"
    assert changes[19]["generic"] == pytest.approx((-0.07 - 0.8) / 2)
    assert changes[0] == {
        "from": 0.0,
        "to": 0.05,
        "count": 0,
        **dict.fromkeys(("generic", "generic_se", "tailored", "tailored_se")),
    }


def test_bins() -> None:
    assert [bin_of(score) for score in (0.0, 0.0499, 0.05, 0.5, 0.9999, 1.0)] == [0, 0, 1, 10, 19, 19]
