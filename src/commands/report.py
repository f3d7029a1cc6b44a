"""`llamita report`: writes the report of one run again, or shows several runs side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .. import artifact
from ..console import console, say
from ..errors import DataError
from ..report.side_by_side.page import print_runs, write_page
from ..report.side_by_side.reading import read_runs
from ..runner import execution, stages
from ..runner.identity import StageRun
from .finished import finished_stages


def write_report(run_folder: Path) -> None:
    """Runs the stage `report` on the finished stages of a run.

    Raises:
        DataError: there is no finished stage in the folder, or it holds several runs.
    """
    inputs = finished_stages(run_folder)
    inputs.pop("report", None)
    if not inputs:
        raise DataError(f"{run_folder}: no finished stage in it; expected a run's folder, such as runs/smoke")
    artifact.check_single_run(run_folder, inputs.values())
    settings = stages.settings_class("report")()
    execution.execute(StageRun("report", settings, inputs, run_folder.absolute() / "report"))


def compare_runs(runs: Sequence[Path], output: Path | None) -> None:
    """Prints several runs side by side and writes a page about them if `output` is given.

    Raises:
        ConfigError: one run is given twice.
        DataError: a path is not a run with a report, or not one that this version can read.
    """
    found = read_runs(runs)
    print_runs(found, console)
    if output:
        say(f"page: {write_page(found, output)}")
