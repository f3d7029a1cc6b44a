"""Reads the reports of several runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

from ... import __version__
from ...errors import ConfigError, DataError
from ...yaml_file import nearest, parse_json
from ..collect import empty_report

FILE = "report.json"


@dataclass(frozen=True)
class Run:
    """A run's report, with every key of this version's `report.json`.

    Attributes:
        name: name of the run; if several runs have it, the part in which their paths differ.
        path: its `report.json`.
        report: the report.
        missing: keys that its file lacks, because an older version wrote it; they are empty in `report`.
    """

    name: str
    path: Path
    report: dict[str, Any]
    missing: tuple[str, ...]


def read_runs(paths: Sequence[Path]) -> list[Run]:
    """Reads the reports of at least two runs, each given as the run's folder, its report folder or file.

    Raises:
        ConfigError: one run is given twice.
        DataError: a path is not a run with a report, or not one that this version can read.
    """
    files = [_file(path) for path in paths]
    repeated = [str(file) for file, count in Counter(file.resolve() for file in files).items() if count > 1]
    if repeated:
        raise ConfigError(f"{repeated[0]} is given twice; expected different runs")
    reports = [_read(file) for file in files]
    names = [report["run"]["name"] for report, _ in reports]
    if len(set(names)) < len(names):
        names = _different_parts(paths)
    return [
        Run(name, file, report, missing)
        for name, file, (report, missing) in zip(names, files, reports, strict=True)
    ]


def _different_parts(paths: Sequence[Path]) -> list[str]:
    """The paths without the first and the last parts that all have; whole paths if nothing is left of one."""
    parts = [path.absolute().parts for path in paths]
    first, last = (_equal_parts([one[::step] for one in parts]) for step in (1, -1))
    found = ["/".join(one[first : len(one) - last]) for one in parts]
    return found if all(found) else [str(path) for path in paths]


def _equal_parts(paths: Sequence[Sequence[str]]) -> int:
    """Number of first parts that all paths have."""
    return sum(1 for _ in takewhile(lambda same: len(set(same)) == 1, zip(*paths, strict=False)))


def _file(path: Path) -> Path:
    candidates = [path, path / FILE, path / "report" / FILE]
    found = [candidate for candidate in candidates if candidate.is_file()]
    if found:
        return found[0]
    if not path.exists():
        raise DataError(f"{path}: does not exist; expected the folder of a run, such as runs/smoke")
    raise DataError(
        f"{path}: no report/{FILE} in it; if it is a run's folder, `llamita report {path}` writes it, "
        "otherwise expected such a folder, for example runs/smoke"
    )


def _read(file: Path) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Returns the report with every key of an empty one, and the keys that the file lacks."""
    try:
        report = parse_json(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{file}: invalid JSON ({error}); `llamita report RUN` writes it again") from None
    empty = empty_report()
    if not isinstance(report, dict) or not isinstance(report.get("run"), dict):
        raise DataError(
            f"{file}: not a report of a run; expected the {FILE} that `llamita report RUN` writes"
        )
    for key, value in report.items():
        if key not in empty:
            raise DataError(
                f"{file}: unknown key {key!r}{nearest(key, empty)}; expected a report of llamita "
                f"{__version__} or older"
            )
        if not isinstance(value, type(empty[key])):
            kind = "an object" if isinstance(empty[key], dict) else "a list"
            raise DataError(f"{file}: {key}: expected {kind}; `llamita report RUN` writes the report again")
    _check_run(file, report["run"])
    for stage, settings in (report.get("settings") or {}).items():
        if not isinstance(settings, dict):
            raise DataError(f"{file}: settings.{stage}: expected an object")
    return empty | report, tuple(key for key in empty if key not in report)


def _check_run(file: Path, run: dict[str, Any]) -> None:
    if not isinstance(run.get("name"), str):
        raise DataError(f"{file}: run.name: expected the name of a run")
    stages = run.get("stages")
    if not isinstance(stages, list) or not all(isinstance(stage, dict) for stage in stages):
        raise DataError(f"{file}: run.stages: expected a list of objects, one for each stage")
