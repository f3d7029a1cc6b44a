"""Small reports of runs, written as files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

Report = dict[str, Any]
Change = Callable[[Report], None]


class RunReports:
    """Writes reports: called with a run's name and a function that changes the base report."""

    def __init__(self, base: Report, folder: Path) -> None:
        self.base, self.folder = base, folder

    def __call__(self, name: str, change: Change = lambda report: None) -> Path:
        """Writes `report/report.json` into a new folder of the run and returns that folder."""
        report = json.loads(json.dumps(self.base))
        report["run"]["name"] = name
        change(report)
        folder = self.folder / name / "report"
        folder.mkdir(parents=True)
        (folder / "report.json").write_text(json.dumps(report))
        return folder.parent
