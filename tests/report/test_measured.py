"""Which figures of a report were measured, on which test prompts, and under which titles they are shown."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from llamita.report.artifacts import read_artifacts
from llamita.report.collect import collect
from llamita.report.measured import measured_on
from llamita.report.page_tables import versions_table
from llamita.report.version_figures import versions
from llamita.report.words import verdict

from ..helpers.finished_run import inputs_of


@pytest.fixture
def report(example: Path) -> dict:
    return collect("smoke", read_artifacts(inputs_of(example)))


def labels(svg: str | None) -> list[str]:
    assert svg is not None
    return re.findall(r">([^<>]+)</text>", svg)


def test_measures_are_shown_with_their_test_prompts(report: dict) -> None:
    assert measured_on(report, "violation_rate") == "harmful prompts"
    report["prompts"] |= {kind: {"read": 500, "too_long": 1} for kind in ("harmful", "borderline")}
    report["settings"]["evaluate"]["false_refusal_prompts"] = 300
    table = versions_table(report, sizes=True)
    assert table is not None
    assert [row[0] for row in table["rows"]] == [
        "gold helpfulness (1,000 ordinary prompts)",
        "helpfulness RM score (1,000 ordinary prompts)",
        "safety RM score (499 harmful prompts)",
        "violation rate % (499 harmful prompts)",
        "invalid rate % (499 harmful prompts)",
        "false refusal rate % (300 ordinary prompts)",
        "borderline refusal % (499 borderline prompts)",
        "KL to SFT, nats (1,499 ordinary and harmful prompts)",
        "KL to start, nats (1,499 ordinary and harmful prompts)",
        "tokens per answer (1,998 prompts)",
    ]
    assert "harmful prompts (n = 499)" in labels(versions(report))


def test_refusals_are_called_refusals(report: dict) -> None:
    for measures in report["versions"].values():
        measures |= {"refusal_rate": 0.9, "refusal_rate_se": 0.01}
    assert "refusals" in labels(versions(report))
    assert verdict("ordinary", {"verdict": "refusal", "helpfulness": 0.0}) == ("false refusal", "bad")
    assert verdict("harmful", {"verdict": "refusal", "helpfulness": None}) == ("refusal", "good")
