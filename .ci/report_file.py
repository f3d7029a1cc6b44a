"""What the checks of a run's report have in common."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any


def read_report(usage: str | None) -> dict[str, Any]:
    """Reads the report.json named on the command line, as `read_reports` does; it must be the only one."""
    if len(sys.argv) != 2:
        sys.exit(usage)
    (report,) = read_reports(usage).values()
    return report


def read_reports(usage: str | None) -> dict[str, dict[str, Any]]:
    """Reads each report.json named on the command line and prints how long its stages took.

    Returns the reports by their paths. Exits with `usage` if there is no argument or one is repeated, with
    code 2 if a file cannot be read.
    """
    paths = sys.argv[1:]
    if not paths or len(set(paths)) < len(paths):
        sys.exit(usage)
    return {path: _read(path) for path in paths}


def _read(path: str) -> dict[str, Any]:
    try:
        report: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        print(f"{path}: {error}", file=sys.stderr)
        sys.exit(2)
    seconds = report.get("wall_seconds") or {}
    print(f"stages took {sum(seconds.values()) / 60:.1f} min: {seconds}")
    return report
