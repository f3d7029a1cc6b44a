"""Small reports of runs, written as files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llamita.report.artifacts import read_artifacts
from llamita.report.collect import collect

from ...helpers.finished_run import inputs_of
from ...helpers.run_reports import RunReports


@pytest.fixture(scope="session")
def base_report(finished_run: Path) -> dict[str, Any]:
    return collect("smoke", read_artifacts(inputs_of(finished_run)))


@pytest.fixture
def write_run(tmp_path: Path, base_report: dict[str, Any]) -> RunReports:
    return RunReports(base_report, tmp_path / "runs")
