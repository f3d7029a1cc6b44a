"""Figures of rejection sampling and PPO from the report's dictionary: SVG, or None if not measured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ..data.rows import CONTEXTS
from .style import COLOUR, WIDTH, legend_beside, line_styles, name_ticks, panels, style, to_svg
from .words import CONTEXT_TITLES, words

Report = dict[str, Any]

# key, title, label of the vertical axis
PPO_PANELS = (
    ("score", "reward", "mean, 0 to 1"),
    ("helpfulness_score", "helpfulness RM score", ""),
    ("safety_score", "safety RM score", ""),
    ("judge_score", "third RM score", ""),
    ("held_out_score", "held-out reward", ""),
    ("kl", "KL to start", "nats per answer"),
)
OPTIONAL = ("judge_score", "held_out_score")  # without a panel if no stage measured them
PPO_DIAGNOSTICS = (
    ("reward_safety_branch", "reward, safety branch", "mean, 0 to 1"),
    ("reward_helpfulness_branch", "reward, helpfulness branch", ""),
    ("safety_branch_share", "share of safety branch", ""),
    ("advantage_std", "advantages", "standard deviation"),
    ("sampler_deviation_p95", "sampler deviation", "95th percentile, nats"),
)


def rejection_scores(report: Report) -> str | None:
    """Draws the mean reward of all samples and of the selected answers by rejection stage."""
    stages = report["rejection"]
    series = (
        ("best_score", "selected answers", COLOUR["blue"]),
        ("mean_score", "all samples", COLOUR["grey"]),
    )
    if not any(metrics[key] is not None for metrics in stages.values() for key, *_ in series):
        return None
    with style():
        figure, (axes,) = panels(1, 2.4)
        for key, label, colour in series:
            points = [
                (place, metrics[key])
                for place, metrics in enumerate(stages.values())
                if metrics[key] is not None
            ]
            if points:
                axes.plot(*zip(*points, strict=True), color=colour, marker="o", label=label)
        name_ticks(axes, list(stages), 0.7 * WIDTH)
        axes.set_ylim(0, 1.05)
        axes.set_title("reward of the sampled answers")
        axes.set_ylabel("mean, 0 to 1")
        legend_beside(axes)
        return to_svg(figure, "rejection", "Mean reward of samples and selected answers by rejection stage")


def ppo_progress(report: Report) -> str | None:
    """Draws rewards and KL by iteration, with one line for each PPO stage."""
    stages = {name: series for name, series in report["ppo"].items() if series["iteration"]}
    if not stages:
        return None
    with style():
        shown = [panel for panel in PPO_PANELS if panel[0] not in OPTIONAL or _measured(stages, panel[0])]
        figure, row = panels(len(shown), 2.4)
        _iteration_panels(figure, row, stages, shown=shown)
        row[-1].set_ylim(bottom=min(0, row[-1].get_ylim()[0]))
        return to_svg(figure, "ppo", "Reward and KL by iteration of each PPO stage")


def ppo_diagnostics(report: Report) -> str | None:
    """Draws rewards by branch, advantages and the sampler's deviation by iteration."""
    stages = {name: series for name, series in report["ppo"].items() if series["iteration"]}
    if not any(_measured(stages, key) for key, *_ in PPO_DIAGNOSTICS):
        return None
    with style():
        figure, row = panels(len(PPO_DIAGNOSTICS), 2.4)
        _iteration_panels(figure, row, stages, shown=PPO_DIAGNOSTICS)
        for axes in row[2:]:
            axes.set_ylim(bottom=0)
        return to_svg(figure, "ppo_diagnostics", "Diagnostics of each PPO stage by iteration")


def ppo_contexts(report: Report) -> str | None:
    """Draws the safety score of the answers to adversarial prompts by iteration, a panel for each context."""
    stages = {name: series for name, series in report["ppo"].items() if series["iteration"]}
    shown = [
        (key, CONTEXT_TITLES[context], "" if context != CONTEXTS[0] else "safety RM score")
        for context in CONTEXTS
        if _measured(stages, key := f"adversarial_safety_score_{context}")
    ]
    if not shown:
        return None
    with style():
        figure, row = panels(len(shown), 2.4)
        _iteration_panels(figure, row, stages, shown=shown)
        for axes in row:
            axes.set_ylim(0, 1.02)
        return to_svg(figure, "ppo_contexts", "Safety score of adversarial prompts by context and iteration")


def _measured(stages: dict[str, Report], key: str) -> bool:
    return any(value is not None for series in stages.values() for value in series.get(key) or ())


def _iteration_panels(
    figure: Figure, row: Sequence[Axes], stages: dict[str, Report], *, shown: Sequence[tuple[str, str, str]]
) -> None:
    """Draws a panel for each key, with a line for each stage."""
    for axes, (key, title, unit) in zip(row, shown, strict=True):
        for (name, series), line in zip(stages.items(), line_styles(), strict=False):
            _iteration_line(axes, series, key, label=words(name), **line)
        axes.set_title(title)
        axes.set_ylabel(unit)
        axes.set_xlabel("iteration")
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    handles, labels = row[-1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=5)


def _iteration_line(axes: Axes, series: Report, key: str, **line: Any) -> None:
    """Draws the values that are not null; a series without any still gets its entry in the legend."""
    points = [(x, y) for x, y in zip(series["iteration"], series[key], strict=True) if y is not None]
    axes.plot([x for x, _ in points], [y for _, y in points], **line)
