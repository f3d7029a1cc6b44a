"""What of a report was measured: the rest has its place in `report.json`, but none in tables and figures."""

from __future__ import annotations

from typing import Any

from ..measures import RETENTION_TURNS

Report = dict[str, Any]


def measured_versions(report: Report) -> dict[str, Report]:
    """The versions of which anything is known, oldest first."""
    return {
        name: found
        for name, found in report["versions"].items()
        if any(value is not None for value in found.values())
    }


def measured_differences(report: Report) -> dict[tuple[str, str], Report]:
    """(version, the version it is compared with) -> differences of which anything is known."""
    return {
        (name, other): found
        for name, others in report["differences"].items()
        for other, found in others.items()
        if any(value is not None for value in found.values())
    }


def asked_turns(report: Report) -> list[str]:
    """The turns at which any instruction was looked for, as they are keys of the report."""
    groups = [
        *report["gatt_retention"].values(),
        *report["gatt_retention_explicit"].values(),
        *(found["by_turn"] for found in report["gatt_attention"].values()),
    ]
    turns = map(str, RETENTION_TURNS)
    return [turn for turn in turns if any(group.get(turn) is not None for group in groups)]
