"""Figures of several runs, as SVG, or None if no run has what they show."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from ...measures import RETENTION_TURNS
from ..style import WIDTH, line_styles, name_ticks, panels, point_styles, style, to_svg
from ..words import words
from .measures import Value
from .reading import Run

Runs = Sequence[Run]
_SHIFT = 0.08  # between the runs' points at one place
_VERSION_PANELS = (
    # key of a version, title, whether it is a share
    ("gold_helpfulness", "gold\nhelpfulness", False),
    ("helpfulness_score", "helpfulness\nRM score", False),
    ("violation_rate", "violation\nrate", True),
    ("false_refusal_rate", "false refusal\nrate", True),
    ("kl_to_sft", "KL to SFT,\nnats", False),
)


def versions(runs: Runs) -> str | None:
    """Draws the measures of every version, one line per run, with standard errors."""
    names = _names(run.report["versions"] for run in runs)
    found = [
        (key, title, share)
        for key, title, share in _VERSION_PANELS
        if _measured(runs, partial(_of_models, group="versions", names=names, key=key))
    ]
    if not found:
        return None
    with style():
        figure, row = panels(len(found), 2.9)
        for axes, (key, title, share) in zip(row, found, strict=True):
            _series(axes, runs, partial(_of_models, group="versions", names=names, key=key))
            axes.set_title(title)
            name_ticks(axes, names, WIDTH / len(found))
            if share:
                axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        return _finish(figure, row, "versions", description="Measures of every version of each run")


def reward(runs: Runs) -> str | None:
    """Draws the accuracy of every reward model, a point per run, with standard errors."""
    names = _names(run.report["reward"] for run in runs)
    accuracies = partial(_of_models, group="reward", names=names, key="accuracy")
    if not _measured(runs, accuracies):
        return None
    with style():
        figure, row = panels(1, 2.6)
        _series(row[0], runs, accuracies, ls="")
        name_ticks(row[0], names, WIDTH)
        row[0].yaxis.set_major_formatter(PercentFormatter(1.0))
        return _finish(figure, row, "reward", description="Accuracy of the reward models of each run")


def retention(runs: Runs) -> str | None:
    """Draws the share of dialogues that follow the instruction of Ghost Attention, by turn, for each run."""
    turns = [str(turn) for turn in RETENTION_TURNS]

    def shares(run: Run) -> list[Value]:
        by_turn = run.report["gatt_retention"].get("with") or {}
        return [(by_turn.get(turn), by_turn.get(f"{turn}_se")) for turn in turns]

    if not _measured(runs, shares):
        return None
    with style():
        figure, row = panels(1, 2.6)
        _series(row[0], runs, shares)
        row[0].set_xticks(range(len(turns)), turns)
        row[0].set_xlabel("turn")
        row[0].yaxis.set_major_formatter(PercentFormatter(1.0))
        return _finish(figure, row, "retention", description="Instruction following by turn of each run")


def losses(runs: Runs) -> str | None:
    """Draws the training loss of pretraining and SFT, one line per run."""
    stages = [
        stage
        for stage in ("pretrain", "sft")
        if any((run.report["curves"].get(stage) or {}).get("loss") for run in runs)
    ]
    if not stages:
        return None
    with style():
        figure, row = panels(len(stages), 2.7)
        for axes, stage in zip(row, stages, strict=True):
            for run, look in zip(runs, line_styles(), strict=False):
                curve = run.report["curves"].get(stage) or {"step": [], "loss": []}
                axes.plot(curve["step"], curve["loss"], label=run.name, lw=1.2, **look)
            axes.set_title(words(stage))
            axes.set_xlabel("optimizer step")
        row[0].set_ylabel("training loss, nats per token")
        return _finish(figure, row, "losses", description="Training loss of each run")


FIGURES = (
    (versions, "Versions of each run in the order of training, with standard errors."),
    (
        retention,
        "Share of dialogues in which the answer at a turn follows the instruction, with Ghost Attention.",
    ),
    (reward, "Accuracy of the reward models on held-out pairs."),
    (losses, "Training loss. Runs with other data or another tokenizer are not comparable."),
)
"""Figures of the page and their captions."""


def _names(groups: Iterable[dict[str, Any]]) -> list[str]:
    """Names of the versions or models of all runs, in the order in which they occur."""
    return list(dict.fromkeys(name for group in groups for name in group))


def _of_models(run: Run, *, group: str, names: Sequence[str], key: str) -> list[Value]:
    figures = [run.report[group].get(name) or {} for name in names]
    return [(one.get(key), one.get(f"{key}_se")) for one in figures]


def _measured(runs: Runs, values: Callable[[Run], list[Value]]) -> bool:
    return any(value is not None for run in runs for value, _ in values(run))


def _series(axes: Axes, runs: Runs, values: Callable[[Run], list[Value]], **line: Any) -> None:
    """Draws a line with error bars for each run, side by side; missing figures are gaps."""
    for place, (run, look) in enumerate(zip(runs, point_styles(), strict=False)):
        found = values(run)
        shift = (place - (len(runs) - 1) / 2) * _SHIFT
        axes.errorbar(
            [x + shift for x in range(len(found))],
            [math.nan if value is None else value for value, _ in found],
            yerr=[error or 0.0 for _, error in found],
            label=run.name,
            **look,
            **line,
        )


def _finish(figure: Figure, row: Sequence[Axes], name: str, *, description: str) -> str:
    """Adds one legend for all panels and returns the SVG."""
    figure.legend(*row[0].get_legend_handles_labels(), loc="outside upper left", ncols=4)
    return to_svg(figure, name, description)
