"""Figures of the versions: violations by group of prompts, and which violations a later version mitigates."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..intervals import share_with_interval
from .answers import Answer
from .judges import Judgement
from .prompts import RedTeamPrompt

Judged = Sequence[tuple[RedTeamPrompt, bool]]
"""Prompt of each judged answer, and whether the answer is a violation."""
NONE = "none"
"""Group of the prompts without a risk category or attack style."""


def judged(
    prompts: Mapping[str, RedTeamPrompt], answers: Sequence[Answer], judgements: Sequence[Judgement]
) -> Judged:
    """Returns the judged answers of one version."""
    return [
        (prompts[answer.prompt], judgement.violation)
        for answer, judgement in zip(answers, judgements, strict=True)
        if judgement.violation is not None
    ]


def version_figures(rows: Judged) -> dict[str, Any]:
    """Returns one version's figures over all prompts, and by category, attack style and turns."""
    return {
        "overall": _figures(rows),
        "category": _by(rows, _category),
        "attack": _by(rows, _attack),
        "turns": _by(rows, lambda prompt: prompt.turns),
        "category_by_attack": {
            category: _by(part, _attack) for category, part in _groups(rows, _category).items()
        },
    }


def mitigated(
    prompts: Mapping[str, RedTeamPrompt], earlier: Mapping[str, bool | None], later: Mapping[str, bool | None]
) -> dict[str, Any]:
    """Compares two versions prompt by prompt, see `violated_prompts`; undecided prompts are left out.

    Returns:
        `violated` by the earlier version and how many of them are `mitigated` by the later one, with
        `mitigated_share`, `low` and `high`; `not_violated` and how many of them are `new`, with `new_share`,
        `new_low` and `new_high`.
    """
    both = [
        (prompts[name].origin, before, after)
        for name, before in earlier.items()
        if before is not None and (after := later.get(name)) is not None
    ]
    improved = [(origin, not after) for origin, before, after in both if before]
    worse = [(origin, after) for origin, before, after in both if not before]
    share, low, high = _share(improved)
    new_share, new_low, new_high = _share(worse)
    return {
        "violated": len(improved),
        "mitigated": sum(value for _, value in improved),
        "mitigated_share": share,
        "low": low,
        "high": high,
        "not_violated": len(worse),
        "new": sum(value for _, value in worse),
        "new_share": new_share,
        "new_low": new_low,
        "new_high": new_high,
    }


def violated_prompts(answers: Sequence[Answer], judgements: Sequence[Judgement]) -> dict[str, bool | None]:
    """Returns by prompt whether one of its answers is a violation, None if unjudged ones leave it open."""
    found: dict[str, list[bool | None]] = {}
    for answer, judgement in zip(answers, judgements, strict=True):
        found.setdefault(answer.prompt, []).append(judgement.violation)
    return {
        name: True if True in violations else None if None in violations else False
        for name, violations in found.items()
    }


def _share(rows: Sequence[tuple[str, bool]]) -> tuple[float | None, float | None, float | None]:
    return share_with_interval([float(value) for _, value in rows], [origin for origin, _ in rows])


def _figures(rows: Judged) -> dict[str, Any]:
    rate, low, high = _share([(prompt.origin, violation) for prompt, violation in rows])
    prompts = len({prompt.id for prompt, _ in rows})
    return {"violation_rate": rate, "low": low, "high": high, "prompts": prompts, "answers": len(rows)}


def _by(rows: Judged, group: Callable[[RedTeamPrompt], str]) -> dict[str, Any]:
    return {name: _figures(part) for name, part in _groups(rows, group).items()}


def _groups(rows: Judged, group: Callable[[RedTeamPrompt], str]) -> dict[str, Judged]:
    names = sorted({group(prompt) for prompt, _ in rows})
    return {name: [row for row in rows if group(row[0]) == name] for name in names}


def _category(prompt: RedTeamPrompt) -> str:
    return prompt.category or NONE


def _attack(prompt: RedTeamPrompt) -> str:
    return prompt.attack or NONE
