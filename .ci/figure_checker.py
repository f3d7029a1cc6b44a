"""Compares figures of one report, or their means over several, with bounds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

NOISE = 1.0  # standard errors
CHANCE = 2.0  # standard deviations
SCATTER = {"gold_helpfulness": 0.02, "gatt_retention": 0.03}  # between runs: docs/results/miniature.md


class Checker:
    """Reads figures by their dotted keys and collects those that miss their bounds.

    With several reports a figure is the mean over them, and its standard error that of the mean: reports of
    different seeds have different test prompts.
    """

    def __init__(self, reports: Sequence[dict[str, Any]]) -> None:
        self.reports = reports
        self.misses: list[str] = []
        self.notes: list[str] = []
        self.checked = self.failed = 0

    def figure(self, key: str) -> float | None:
        """Returns the mean over the reports; None if one of them lacks the figure."""
        values = [_look_up(report, key) for report in self.reports]
        numbers = [float(value) for value in values if isinstance(value, int | float)]
        return math.fsum(numbers) / len(numbers) if len(numbers) == len(values) else None

    def error(self, key: str) -> float:
        """Returns the standard error of `figure`; reports without an error count as exact."""
        errors = [_look_up(report, f"{key}_se") or 0.0 for report in self.reports]
        return math.hypot(*errors) / len(errors)

    def group(self, key: str) -> list[str]:
        """Returns the keys below `key` in any report, in their order."""
        groups = [_look_up(report, key) or {} for report in self.reports]
        return list(dict.fromkeys(name for group in groups for name in group))

    def at_least(self, key: str, bound: float) -> None:
        self._compare(key, 1, None, bound)

    def at_most(self, key: str, bound: float) -> None:
        self._compare(key, -1, None, bound)

    def at_least_times(self, key: str, factor: float, other: str, noise: float = NOISE) -> None:
        """`key` is at least `factor` times `other`."""
        self._compare(key, 1, other, factor, noise)

    def not_worse(self, key: str, sign: int) -> None:
        """The paired difference `key`, which is good if it has the sign, is not bad beyond two errors."""
        self._compare(key, sign, None, 0.0, CHANCE)

    def reported(self, key: str) -> None:
        """`key` is in the reports, with its error; it has no bound."""
        self.checked += 1
        value = self.figure(key)
        if value is None:
            self._missing(key)
        else:
            self.notes.append(f"{key}: {value:+.4f}, standard error {self.error(key):.4f}")

    def _missing(self, key: str | None) -> None:
        self.misses.append(f"{key}: not in the report")
        self.failed += 1

    def _compare(self, key: str, sign: int, other: str | None, factor: float, noise: float = NOISE) -> None:
        self.checked += 1
        value = self.figure(key)
        reference = 1.0 if other is None else self.figure(other)
        if value is None or reference is None:
            self._missing(key if value is None else other)
            return
        error = self.error(key)
        if other is not None:
            error = math.hypot(error, factor * self.error(other))
        bound = factor * reference
        if not sign * (value - bound) >= -noise * error:
            scatter = next((size for name, size in SCATTER.items() if name in key), 0.0)
            scatter /= math.sqrt(len(self.reports))
            by_chance = noise < CHANCE and sign * (value - bound) >= -CHANCE * math.hypot(error, scatter)
            self.failed += not by_chance
            wanted = f"{'at least' if sign > 0 else 'at most'} {bound:.4f}"
            source = f" ({factor:g} times {other})" if other else ""
            verdict = "may be chance" if by_chance else "not by chance"
            self.misses.append(
                f"{key}: {value:.4f}, expected {wanted}{source}, standard error {error:.4f}; {verdict}"
            )


def _look_up(report: dict[str, Any], key: str) -> Any:
    value: Any = report
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value
