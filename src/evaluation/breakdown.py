"""Figures by context, turn, risk category, attack style and language of prompts (sections 4.2 and 4.4)."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from ..data.rows import CONTEXTS
from ..measures import BREAKDOWN, BREAKDOWN_LABELS, with_errors
from .prompts import EvaluationPrompt
from .values import Values, compared_versions, figures, subtract

Breakdown = dict[str, dict[str, dict[str, Any]]]
"""Label -> group -> `{"prompts": number of prompts, measure: mean, "measure_se": …}`."""


def breakdown(prompts: Sequence[EvaluationPrompt], values: Values, groups: Sequence[Hashable]) -> Breakdown:
    """Returns the figures of `BREAKDOWN` in each group of prompts that share a label.

    Args:
        prompts: the prompt of each answer.
        values: measures, one value per answer.
        groups: see `figures`.

    Returns:
        Only groups that have prompts; measures that have no values in a group are null.
    """
    measured = {name: values[name] for name in BREAKDOWN if name in values}
    return {label: _by_label(label, prompts, measured, groups=groups) for label in BREAKDOWN_LABELS}


def _by_label(
    label: str, prompts: Sequence[EvaluationPrompt], values: Values, *, groups: Sequence[Hashable]
) -> dict[str, dict[str, Any]]:
    rows: dict[Any, list[int]] = {}
    for row, prompt in enumerate(prompts):
        if (value := getattr(prompt, label)) is not None:
            rows.setdefault(value, []).append(row)
    ordered = sorted(rows, key=CONTEXTS.index) if label == "context" else sorted(rows)
    return {
        str(value): {
            "prompts": len({id(prompts[row]) for row in rows[value]}),
            **with_errors(BREAKDOWN),
            **figures(
                {name: [column[row] for row in rows[value]] for name, column in values.items()},
                [groups[row] for row in rows[value]],
            ),
        }
        for value in ordered
    }


def breakdown_differences(
    prompts: Sequence[EvaluationPrompt], versions: Mapping[str, Values], groups: Sequence[Hashable]
) -> dict[str, dict[str, Breakdown]]:
    """Returns the breakdown of the paired differences between versions, `{version: {other: …}}`."""
    return {
        name: {
            other: breakdown(prompts, subtract(versions[name], versions[other], BREAKDOWN), groups)
            for other in others
        }
        for name, others in compared_versions(list(versions)).items()
    }
