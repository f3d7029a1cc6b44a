"""Tables of the page, some also for the terminal, as text built from the report's dictionary."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from ..measures import RETENTION_SERIES
from .benchmark_tables import benchmark_details_table, benchmark_table
from .comparison_tables import judge_model_table, raters_table, win_rates_table
from .contamination_tables import overlap_table, subsets_table
from .measured import measured_differences, measured_on, measured_turns, measured_versions
from .paper import RETENTION, REWARD_ACCURACY
from .red_team_tables import red_team_table
from .regressions import is_worse
from .safety_tables import (
    agreement_table,
    classifier_table,
    distillation_table,
    false_refusals_table,
    unsafe_table,
    version_retention_table,
    violations_table,
    worse_table,
)
from .words import (
    MEASURE_COLUMNS,
    MISSING,
    PAGE_ONLY,
    REJECTION_COLUMNS,
    SERIES_TITLES,
    WORSE,
    count,
    difference_title,
    figure,
    words,
)

Report = dict[str, Any]
Table = dict[str, Any]
"""`{"head": column titles, "rows": texts of the cells}`"""


def tables(section: str, report: Report) -> list[Table]:
    """Returns the tables of a section of the page that have any measured value."""
    makers: dict[str, tuple[Callable[[Report], Table | None], ...]] = {
        "versions": (partial(versions_table, sizes=True), differences_table),
        "win_rates": (win_rates_table, raters_table, judge_model_table),
        "reward": (reward_table, unsafe_table),
        "rejection": (rejection_table,),
        "retention": (retention_table, version_retention_table),
        "distillation": (distillation_table,),
        "false_refusals": (agreement_table, classifier_table),
        "red_team": (red_team_table,),
        "safety_evaluation": (violations_table, false_refusals_table, worse_table),
        "benchmark": (benchmark_table, benchmark_details_table),
        "contamination": (overlap_table, subsets_table),
        "training": (pretraining_table,),
    }
    return [table for make in makers.get(section, ()) if (table := make(report)) is not None]


def versions_table(report: Report, *, sizes: bool = False) -> Table | None:
    """Returns all measures by version; with `sizes`, titles include the kind and number of test prompts."""
    groups = measured_versions(report)
    rows = [
        [
            f"{title} ({measured_on(report, key)})" if sizes else title,
            *(figure(group, key, percent) for group in groups.values()),
        ]
        for key, title, percent in MEASURE_COLUMNS
        if any(group.get(key) is not None for group in groups.values()) and (sizes or key not in PAGE_ONLY)
    ]
    return {"head": ["", *map(words, groups)], "rows": rows} if rows else None


def differences_table(report: Report) -> Table | None:
    groups = measured_differences(report)
    rows = [
        [title, *(difference(group, key, percent) for group in groups.values())]
        for key, title, percent in MEASURE_COLUMNS
        if any(group.get(key) is not None for group in groups.values())
    ]
    titles = [difference_title(*pair) for pair in groups]
    return {"head": ["paired difference", *titles], "rows": rows} if rows else None


def difference(group: Report, key: str, percent: bool, *, mark: str = f" {WORSE}") -> str:
    """Formats a paired difference, with a mark if it is worse by more than two standard errors."""
    return figure(group, key, percent, signed=True) + (mark if is_worse(group, key) else "")


def pretraining_table(report: Report) -> Table | None:
    figures = report["pretrain"]
    if figures["validation_bits_per_byte"] is None:
        return None
    rows = [
        ["base model", figure(figures, "validation_bits_per_byte")],
        ["unigram baseline (token frequencies only)", figure(figures, "unigram_bits_per_byte")],
    ]
    return {"head": ["held-out pretraining text", "bits per byte"], "rows": rows}


def reward_table(report: Report) -> Table | None:
    models = {name: model for name, model in report["reward"].items() if model["accuracy"] is not None}
    if not models:
        return None
    accuracies = [figure(model, "accuracy", percent=True) for model in models.values()]
    rows = [["accuracy on held-out pairs, %", *accuracies]]
    for key, title in (("pairs", "held-out pairs"), ("prompts", "distinct prompts of these pairs")):
        rows.append([title, *(count(model[key]) for model in models.values())])
    if any(name in REWARD_ACCURACY for name in models):
        paper = [REWARD_ACCURACY.get(name, {}).get("accuracy") for name in models]
        cells = [MISSING if accuracy is None else f"{100 * accuracy:.1f}" for accuracy in paper]
        rows.insert(1, ["the paper's 70B model (table 7), %", *cells])
    return {"head": ["", *map(words, models)], "rows": rows}


def rejection_table(report: Report) -> Table | None:
    stages = report["rejection"]
    rows = [
        [title, *(_count_or_figure(metrics, key, percent) for metrics in stages.values())]
        for key, title, percent in REJECTION_COLUMNS
        if any(metrics.get(key) is not None for metrics in stages.values())
    ]
    return {"head": ["", *map(words, stages)], "rows": rows} if rows else None


def _count_or_figure(group: Report, key: str, percent: bool) -> str:
    return count(group.get(key)) if isinstance(group.get(key), int) else figure(group, key, percent)


def retention_table(report: Report) -> Table | None:
    turns, rows = measured_turns(report), []
    for key, suffix, counted in (
        ("gatt_retention", "", "reached"),
        ("gatt_retention_explicit", ", asked directly", "asked"),
    ):
        for name in RETENTION_SERIES:
            group, counts = report[key][name], report["gatt_dialogues"][name] or {}
            cells = [figure(group, turn, percent=True) + share_of(counts, turn, counted) for turn in turns]
            if any(group.get(turn) is not None for turn in turns):
                rows.append([SERIES_TITLES[name] + suffix, *cells])
    difference = report["gatt_retention_difference"]
    if any(value is not None for value in difference.values()):
        cells = [figure(difference, turn, percent=True, signed=True) for turn in turns]
        rows.append(["with − without GAtt, paired", *cells])
    if rows:
        for name, shares in RETENTION.items():
            cells = [f"{100 * shares[turn]:.0f}" if turn in shares else MISSING for turn in turns]
            rows.append([f"the paper, {SERIES_TITLES[name]} (table 30)", *cells])
    return {"head": ["instruction following at turn, %", *turns], "rows": rows} if rows else None


def share_of(counts: dict[str, Any], turn: str, key: str = "reached") -> str:
    """Returns ` (197 of 200)` if some dialogues exceeded the context before this turn, else nothing."""
    by_turn = counts.get(key) or {}
    total = counts["started"] if key == "reached" and by_turn else max(by_turn.values(), default=0)
    measured = by_turn.get(turn, total)
    return f" ({measured} of {total})" if measured < total else ""
