"""Tables of several runs, the same in the terminal and on the page, and the notes below them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from ...console import duration
from ...yaml_file import brief, flatten
from ..page_tables import Table
from ..words import MISSING, WORSE, difference_title, figure, words
from .measures import Row, Value
from .reading import Run

_NO_STAGE, _NO_KEY = object(), object()
LETTERS = 40  # of a setting's value


def figures_table(runs: Sequence[Run], rows: Sequence[Row]) -> Table:
    """Returns every figure of the runs, and the differences to the first one."""
    first, *others = runs
    head = ["", *(run.name for run in runs), *(difference_title(run.name, first.name) for run in others)]
    return {"head": head, "rows": [_cells(row) for row in rows]}


def settings_table(runs: Sequence[Run]) -> Table:
    """Returns what differs between the runs: stages, their settings, package versions, the code's commits.

    A stage that a run lacks is one row; its settings are compared between the other runs.
    """
    rows: list[list[str]] = []
    for stage in _union(run.report["settings"] for run in runs):
        found = [run.report["settings"].get(stage) for run in runs]
        if None in found:
            rows.append([f"stage {words(stage)}", *(MISSING if one is None else "finished" for one in found)])
        flat = [None if one is None else flatten(one) for one in found]
        for key in _union(one for one in flat if one is not None):
            values = [_NO_STAGE if one is None else one.get(key, _NO_KEY) for one in flat]
            rows += _differing(f"{words(stage)}: {key}", values)
    for package in _union(run.report["packages"] for run in runs):
        rows += _differing(
            f"package {package}", [run.report["packages"].get(package, _NO_KEY) for run in runs]
        )
    rows += _differing("git commit", [", ".join(_commits(run)) or _NO_KEY for run in runs])
    return {"head": ["", *(run.name for run in runs)], "rows": rows}


def notes(runs: Sequence[Run], rows: Sequence[Row]) -> Iterator[str]:
    """Yields what a reader of the tables must know."""
    first = runs[0].name
    yield (
        f"Differences are to {first}. Their errors cover the choice of test prompts only and treat the runs "
        "as independent; another seed changes the figures by more. Scores of reward models can be compared "
        "only if the runs share these models."
    )
    if any(row.worse(place) for row in rows for place in range(1, len(runs))):
        yield f"“{WORSE}”: worse than {first} by more than two standard errors of the difference."
    for run in runs:
        if run.missing:
            yield (
                f"{run.name}: its report.json was written by an older version and lacks "
                f"{', '.join(run.missing)}; `llamita report RUN` writes it again."
            )


def _cells(row: Row) -> list[str]:
    differences = [
        _cell(row, row.difference(place), signed=True) + (f" {WORSE}" if row.worse(place) else "")
        for place in range(1, len(row.values))
    ]
    return [row.title, *(_cell(row, value) for value in row.values), *differences]


def _cell(row: Row, value: Value, *, signed: bool = False) -> str:
    number, error = value
    if number is not None and row.measure.unit == "seconds":
        sign = "" if not signed else "−" if number < 0 else "+"
        return sign + duration(abs(number))
    group = {"value": number, "value_se": error}
    return figure(group, "value", row.measure.unit == "percent", signed=signed)


def _differing(title: str, values: Sequence[Any]) -> list[list[str]]:
    """Returns one row if the values differ, otherwise none."""
    compared = [value for value in values if value is not _NO_STAGE]
    if all(value == compared[0] for value in compared):
        return []
    absent = (_NO_STAGE, _NO_KEY)
    return [[title, *(MISSING if value in absent else brief(value, LETTERS) for value in values)]]


def _union(groups: Any) -> list[str]:
    """The keys of all dictionaries, in the order in which they occur."""
    return list(dict.fromkeys(key for group in groups for key in group))


def _commits(run: Run) -> list[str]:
    commits = (stage.get("git_commit") for stage in run.report["run"].get("stages", ()))
    return list(dict.fromkeys(commit[:12] for commit in commits if commit))
