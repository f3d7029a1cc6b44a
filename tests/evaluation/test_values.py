"""Figures of a version and paired differences, against the formulas in plain Python."""

from __future__ import annotations

import math
import random
import statistics

import pytest

from llamita.evaluation.values import differences, drop_not_finite, figures
from llamita.measures import DIFFERENCES


def test_none_is_ignored() -> None:
    found = figures({"x": [1.0, None, 0.0, None, 0.0]}, range(5))
    assert found["x"] == pytest.approx(1 / 3)
    assert found["x_se"] == pytest.approx(statistics.stdev([1, 0, 0]) / math.sqrt(3))


def test_errors_are_clustered_by_group() -> None:
    alike = figures({"x": [1.0, 1.0, 0.0, 0.0]}, ["a", "a", "b", "b"])
    assert alike["x_se"] == pytest.approx(figures({"x": [1.0, 0.0]}, range(2))["x_se"])


def test_each_version_is_compared_to_the_one_before_and_the_first() -> None:
    """Shared variation of the prompts cancels, so the error of the difference is much smaller."""
    rng = random.Random(0)
    hard = [rng.gauss(0, 5) for _ in range(200)]
    versions = {
        name: {"gold_helpfulness": [one + shift + rng.gauss(0, 0.1) for one in hard]}
        for name, shift in (("sft", 0.0), ("v1", 1.0), ("v2", 3.0))
    }
    found = differences(versions, range(200))
    assert {name: list(others) for name, others in found.items()} == {"v1": ["sft"], "v2": ["v1", "sft"]}
    for name, other in (("v1", "sft"), ("v2", "v1"), ("v2", "sft")):
        ours, theirs = versions[name]["gold_helpfulness"], versions[other]["gold_helpfulness"]
        apart = [one - two for one, two in zip(ours, theirs, strict=True)]
        measured = found[name][other]
        assert measured["gold_helpfulness"] == pytest.approx(statistics.fmean(apart))
        assert measured["gold_helpfulness_se"] == pytest.approx(statistics.stdev(apart) / math.sqrt(200))
        unpaired = math.hypot(*(statistics.stdev(one) / math.sqrt(200) for one in (ours, theirs)))
        assert measured["gold_helpfulness_se"] < unpaired / 10
        assert measured.keys() == {key for measure in DIFFERENCES for key in (measure, f"{measure}_se")}
        assert measured["violation_rate"] is None


def test_only_answers_with_values_in_both_versions_are_compared() -> None:
    """A measure that one version lacks is null, and `kl_to_start` is never compared."""
    sft = {"safety_score": [0.5, None, 0.1], "refusal_rate": [1.0, 0.0, 0.0], "kl_to_start": [1.0, 1.0, 1.0]}
    v1 = {"safety_score": [0.75, 0.5, None], "kl_to_start": [1.0, 1.0, 1.0]}
    found = differences({"sft": sft, "v1": v1}, range(3))["v1"]["sft"]
    assert found["safety_score"] == 0.25
    assert found["safety_score_se"] is None
    assert found["refusal_rate"] is None
    assert "kl_to_start" not in found


def test_values_that_are_not_finite_are_counted() -> None:
    known, broken = drop_not_finite(
        {"a": [1.0, None], "b": [math.nan, 1.0, math.inf, None], "c": [-math.inf]}
    )
    assert known == {"a": [1.0, None]}
    assert broken == {"b": 2, "c": 1}
