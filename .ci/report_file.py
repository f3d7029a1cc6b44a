"""What the checks of a run's report have in common."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any


def read_report(usage: str | None) -> dict[str, Any]:
    """Reads the report.json named on the command line and prints how long its stages took.

    Exits with `usage` if there is not exactly one argument, with code 2 if the file cannot be read.
    """
    if len(sys.argv) != 2:
        sys.exit(usage)
    try:
        report: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        print(f"{sys.argv[1]}: {error}", file=sys.stderr)
        sys.exit(2)
    seconds = report.get("wall_seconds") or {}
    print(f"stages took {sum(seconds.values()) / 60:.1f} min: {seconds}")
    return report
