"""Handmade metrics of the stage `red_team`, and the groups of prompts in these runs."""

from __future__ import annotations

from typing import Any

GROUPS = {
    "context": {"plain": 0.6, "instruction": 1.2, "multi_turn": 1.0, "instruction_multi_turn": 1.2},
    "turn": {"1": 0.8, "2": 0.9, "3": 1.0, "4": 1.1, "5": 1.2, "6": 1.3},
    "category": {"illicit": 0.9, "hateful": 0.8, "unqualified": 1.3},
    "attack": {"none": 0.7, "psychological": 0.9, "logic": 1.0, "perspective": 1.4, "non_english": 1.6},
    "language": {"english": 0.9, "spanish": 1.3, "french": 1.2},
}
"""Dimension -> group -> violations of the group relative to all."""


def red_team_metrics() -> dict[str, Any]:
    """Returns the metrics of the stage `red_team`."""
    versions = {
        name: _attacks(rate) for name, rate in (("sft", 0.5), ("v1/rejection", 0.2), ("v2/ppo", 0.04))
    }
    return {
        "judge": "gold",
        "versions": versions,
        "mitigated": {
            "v1/rejection": {"sft": _mitigated(150, 110, 6)},
            "v2/ppo": {"sft": _mitigated(150, 141, 3), "v1/rejection": _mitigated(60, 55, 2)},
        },
    }


def _share(rate: float, answers: int) -> dict[str, Any]:
    return {
        "violation_rate": rate,
        "low": max(rate - 0.04, 0.0),
        "high": min(rate + 0.06, 1.0),
        "prompts": answers,
        "answers": answers,
    }


def _attacks(rate: float) -> dict[str, Any]:
    categories, attacks = GROUPS["category"], GROUPS["attack"] | {"multi_turn": 1.5}
    return {
        "overall": _share(rate, 300),
        "category": {name: _share(rate * factor, 100) for name, factor in categories.items()},
        "attack": {name: _share(min(rate * factor, 1.0), 50) for name, factor in attacks.items()},
        "turns": {"single": _share(rate * 0.9, 200), "multi": _share(rate * 1.2, 100)},
        "category_by_attack": {
            category: {
                attack: _share(min(rate * factor * other, 1.0), 17)
                for attack, other in attacks.items()
                if (category, attack) != ("hateful", "logic")
            }
            for category, factor in categories.items()
        },
    }


def _mitigated(violated: int, mitigated: int, new: int) -> dict[str, Any]:
    share = mitigated / violated
    return {
        "violated": violated,
        "mitigated": mitigated,
        "mitigated_share": share,
        "low": share - 0.08,
        "high": min(share + 0.05, 1.0),
        "not_violated": 300 - violated,
        "new": new,
        "new_share": new / (300 - violated),
        "new_low": 0.0,
        "new_high": 0.09,
    }
