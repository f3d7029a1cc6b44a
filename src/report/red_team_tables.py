"""Table of red teaming, for the page and the terminal."""

from __future__ import annotations

from typing import Any

from .red_team_figures import GROUPS, measured_attacks, mitigations
from .words import MISSING, words

Report = dict[str, Any]
Table = dict[str, Any]
"""`{"head": column titles, "rows": texts of the cells}`"""


def red_team_table(report: Report) -> Table | None:
    """Returns violations of each version with their 95% interval, and the share mitigated by each version."""
    stages = {name: metrics for name, metrics in report["red_team"].items() if measured_attacks(metrics)}
    versions = list(dict.fromkeys(name for metrics in stages.values() for name in measured_attacks(metrics)))
    rows = []
    for stage, metrics in stages.items():
        prefix = f"{words(stage)}: " if len(stages) > 1 else ""
        found, mitigated = measured_attacks(metrics), dict(mitigations(metrics))
        for key, title in GROUPS:
            groups = [_group(found.get(name) or {}, key) for name in versions]
            if any(group.get("violation_rate") is not None for group in groups):
                rows.append([prefix + title, *(_interval(group, "violation_rate") for group in groups)])
        if mitigated:
            cells = (_interval(mitigated.get(name) or {}, "mitigated_share") for name in versions)
            rows.append([f"{prefix}mitigated, % of earlier", *cells])
    return {"head": ["red team, violations %", *map(words, versions)], "rows": rows} if rows else None


def _group(figures: Report, key: str) -> Report:
    return (figures.get("overall") if key == "overall" else (figures.get("turns") or {}).get(key)) or {}


def _interval(group: Report, key: str) -> str:
    """Formats a share with its interval in percent, as `4.2 (2.9–6.0)`."""
    if group.get(key) is None:
        return MISSING
    text = f"{100 * group[key]:.1f}"
    if group.get("low") is None or group.get("high") is None:
        return text
    return f"{text} ({100 * group['low']:.1f}–{100 * group['high']:.1f})"
