"""Compares the answers of all versions and ablations: the keys of `evaluation.json` about answers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .answering import AnswerTest, Result, Results
from .answers import sample_answers
from .breakdown import breakdown, breakdown_differences
from .distributions import distributions, score_shift
from .prompts import Kind
from .values import difference, differences
from .versions import SFT
from .win_rates import compare_versions

SAMPLES: dict[Kind, int] = {"ordinary": 8, "harmful": 6, "borderline": 4}


def compare_answers(
    test: AnswerTest, results: Mapping[str, Results], ablations: Results, *, out: Path
) -> dict[str, Any]:
    """Returns all keys about answers.

    Args:
        results: version -> name of the decoding -> its results.
        ablations: results of each ablation in the first decoding.
        out: folder for the replies of a judge behind an endpoint, whose errors this raises.
    """
    headline, *others = (decoding.name for decoding in test.settings.decodings)
    by_decoding = {
        decoding: {name: by_name[decoding] for name, by_name in results.items()}
        for decoding in (headline, *others)
    }
    return {
        **_headline(test, by_decoding[headline]),
        **compare_versions(test, by_decoding[headline], out),
        "decodings": {decoding: _versions(test, by_decoding[decoding]) for decoding in others},
        **_ablations(test, ablations, results[SFT][headline]),
    }


def _versions(test: AnswerTest, results: Results) -> dict[str, Any]:
    """Returns the keys that every decoding has."""
    values = {name: result.values for name, result in results.items()}
    return {
        "versions": {name: result.figures for name, result in results.items()},
        "differences": differences(values, test.groups),
        "breakdown": _breakdowns(test, results),
        "not_finite": {name: result.not_finite for name, result in results.items() if result.not_finite},
    }


def _headline(test: AnswerTest, results: Results) -> dict[str, Any]:
    """Returns the keys of the first decoding."""
    values = {name: result.values for name, result in results.items()}
    step = test.settings.num_generations
    first_answers = {name: result.answered[::step] for name, result in results.items()}
    return {
        **_versions(test, results),
        "breakdown_differences": breakdown_differences(test.answered_prompts, values, test.groups),
        "distributions": {name: distributions(columns, test.groups) for name, columns in values.items()},
        "score_shift": score_shift(values),
        "refusal_agreement": {
            name: result.agreement for name, result in results.items() if result.agreement is not None
        },
        "samples": sample_answers(first_answers, test.gold, SAMPLES),
    }


def _ablations(test: AnswerTest, results: Results, sft: Result) -> dict[str, Any]:
    """Returns the keys of ablations, each compared with `sft` only."""
    return {
        "ablations": {name: result.figures for name, result in results.items()},
        "ablation_differences": {
            name: difference(result.values, sft.values, test.groups) for name, result in results.items()
        },
        "ablation_breakdown": _breakdowns(test, results),
    }


def _breakdowns(test: AnswerTest, results: Results) -> dict[str, Any]:
    return {
        name: breakdown(test.answered_prompts, result.values, test.groups) for name, result in results.items()
    }
