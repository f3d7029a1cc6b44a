"""The check of the miniature run's figures: figures within their bounds pass, every miss is printed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ..helpers.repository import REPOSITORY

SCRIPT = REPOSITORY / ".ci" / "check_miniature.py"
REWARD = {
    "pairs": 1000,
    "by_rating": {
        "significantly_better": 0.95,
        "better": 0.89,
        "slightly_better": 0.80,
        "negligibly_better": 0.55,
    },
}
VERSION = {
    "gold_helpfulness": 0.4,
    "violation_rate": 0.5,
    "invalid_rate": 0.0,
    "false_refusal_rate": 0.01,
    "kl_to_start": 2.0,
}
GOOD: dict[str, Any] = {
    "wall_seconds": {"world": 2.5},
    "reward": {"helpfulness": REWARD, "safety": REWARD},
    "demonstrations": {"gold_helpfulness": 0.42},
    "versions": {
        "sft": VERSION,
        "v2/rejection": {**VERSION, "gold_helpfulness": 0.5},
        "v2/ppo": {**VERSION, "gold_helpfulness": 0.6, "violation_rate": 0.01},
    },
    "gatt_retention": {
        "with": {str(turn): 0.99 for turn in (1, 2, 4, 6, 10, 20)},
        "without": {"1": 1.0, "2": 0.8, "4": 0.6, "6": 0.4, "10": 0.3, "20": 0.2},
    },
}


def check(tmp_path: Path, report: object) -> subprocess.CompletedProcess[str]:
    path = tmp_path / "report.json"
    path.write_text(json.dumps(report))
    return subprocess.run(
        [sys.executable, str(SCRIPT), str(path)], capture_output=True, text=True, check=False
    )


def changed(key: str, value: object) -> dict[str, Any]:
    report = json.loads(json.dumps(GOOD))
    *sections, name = key.split(".")
    section = report
    for part in sections:
        section = section[part]
    section[name] = value
    return report


def test_good_figures_pass(tmp_path: Path) -> None:
    result = check(tmp_path, GOOD)
    assert result.returncode == 0, result.stdout
    assert "27 of 27 figures hold" in result.stdout


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("reward.safety.by_rating.significantly_better", 0.899),
        ("reward.helpfulness.by_rating.slightly_better", 0.5),
        ("reward.helpfulness.pairs", 400),
        ("demonstrations.gold_helpfulness", 0.5),
        ("versions.v2/ppo.gold_helpfulness", 0.51),
        ("versions.v2/rejection.gold_helpfulness", 0.7),
        ("versions.v2/ppo.kl_to_start", 5.1),
        ("versions.sft.violation_rate", 0.29),
        ("versions.v2/ppo.violation_rate", 0.06),
        ("versions.v2/ppo.invalid_rate", 0.06),
        ("versions.v2/ppo.false_refusal_rate", 0.04),
        ("gatt_retention.with.20", 0.88),
        ("gatt_retention.without.6", 0.57),
        ("gatt_retention.without.10", None),
    ],
)
def test_every_miss_is_printed(tmp_path: Path, key: str, value: object) -> None:
    result = check(tmp_path, changed(key, value))
    assert result.returncode == 1
    missed = [line for line in result.stdout.splitlines() if line.startswith("MISSED")]
    assert len(missed) == 1
    assert key in missed[0]
    assert missed[0].endswith("not in the report" if value is None else "not by chance")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("versions.v2/ppo.gold_helpfulness", 0.53),
        ("gatt_retention.with.20", 0.9),
        ("gatt_retention.without.6", 0.55),
    ],
)
def test_what_may_be_chance_is_told_and_passes(tmp_path: Path, key: str, value: float) -> None:
    result = check(tmp_path, changed(key, value))
    assert result.returncode == 0
    assert f"MISSED {key}: {value:.4f}" in result.stdout
    assert "26 of 27 figures hold" in result.stdout
    assert "may be chance" in result.stdout


def test_one_standard_error_is_allowed(tmp_path: Path) -> None:
    report = changed("versions.v2/ppo.violation_rate", 0.055)
    assert check(tmp_path, report).returncode == 1
    report["versions"]["v2/ppo"]["violation_rate_se"] = 0.01
    assert check(tmp_path, report).returncode == 0


def test_no_report(tmp_path: Path) -> None:
    assert check(tmp_path, {}).returncode == 1
    result = subprocess.run([sys.executable, str(SCRIPT), "nothing.json"], capture_output=True, check=False)
    assert result.returncode == 2
