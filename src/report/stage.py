"""The stage `report`: `report.json` from the artifacts; `report.html` and terminal tables from that alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..artifact import final_folder, run_name, write_json
from ..console import console, say
from .artifacts import read_artifacts
from .collect import collect
from .page import render
from .settings import ReportSettings
from .table import print_report


def run(settings: ReportSettings, inputs: Mapping[str, Path], out: Path) -> dict[str, Any]:
    """Writes the report on the given artifacts to `out`; figures that they lack are null and not drawn.

    Raises:
        DataError: a manifest or a row of `metrics.jsonl` is broken.
    """
    report = collect(run_name(out), read_artifacts(inputs))
    write_json(out / "report.json", report)
    (out / "report.html").write_text(render(report), encoding="utf-8")
    print_report(report, console)
    say(f"report: {final_folder(out) / 'report.html'}")
    return {}
