"""Tables of the page, some for the terminal too: heads and rows of text, from the report alone."""

from __future__ import annotations

from typing import Any

from ..measures import RETENTION_SERIES
from .measured import asked_turns, measured_differences, measured_versions
from .words import MEASURE_COLUMNS, REJECTION_COLUMNS, SERIES_TITLES, count, difference_title, figure, words

Report = dict[str, Any]
Table = dict[str, Any]
"""`{"head": texts of the columns, "rows": texts of the cells}`"""


def tables(section: str, report: Report) -> list[Table]:
    """The tables of a section of the page, those of which anything was measured."""
    makers = {
        "versions": (versions_table, differences_table),
        "reward": (reward_table,),
        "rejection": (rejection_table,),
        "retention": (retention_table,),
        "training": (pretraining_table,),
    }
    return [table for make in makers.get(section, ()) if (table := make(report)) is not None]


def versions_table(report: Report) -> Table | None:
    groups = measured_versions(report)
    rows = [
        [heading, *(figure(group, key, percent) for group in groups.values())]
        for key, heading, percent in MEASURE_COLUMNS
        if any(group.get(key) is not None for group in groups.values())
    ]
    return {"head": ["", *map(words, groups)], "rows": rows} if rows else None


def differences_table(report: Report) -> Table | None:
    groups = measured_differences(report)
    rows = [
        [heading, *(figure(group, key, percent, signed=True) for group in groups.values())]
        for key, heading, percent in MEASURE_COLUMNS
        if any(group.get(key) is not None for group in groups.values())
    ]
    titles = [difference_title(*pair) for pair in groups]
    return {"head": ["paired difference", *titles], "rows": rows} if rows else None


def pretraining_table(report: Report) -> Table | None:
    figures = report["pretrain"]
    if figures["validation_bits_per_byte"] is None:
        return None
    rows = [
        ["the base model", figure(figures, "validation_bits_per_byte")],
        ["token frequencies alone", figure(figures, "unigram_bits_per_byte")],
    ]
    return {"head": ["held-out text of pretraining", "bits per byte"], "rows": rows}


def reward_table(report: Report) -> Table | None:
    known = {name: found for name, found in report["reward"].items() if found["accuracy"] is not None}
    if not known:
        return None
    rows = [
        ["accuracy on held-out pairs, %", *(figure(one, "accuracy", percent=True) for one in known.values())]
    ]
    for key, heading in (("pairs", "held-out pairs"), ("prompts", "prompts that these share")):
        rows.append([heading, *(count(one[key]) for one in known.values())])
    return {"head": ["", *map(words, known)], "rows": rows}


def rejection_table(report: Report) -> Table | None:
    stages = report["rejection"]
    rows = [
        [heading, *(_count_or_figure(found, key, percent) for found in stages.values())]
        for key, heading, percent in REJECTION_COLUMNS
        if any(found[key] is not None for found in stages.values())
    ]
    return {"head": ["", *map(words, stages)], "rows": rows} if rows else None


def _count_or_figure(group: Report, key: str, percent: bool) -> str:
    return count(group[key]) if isinstance(group[key], int) else figure(group, key, percent)


def retention_table(report: Report) -> Table | None:
    turns, rows = asked_turns(report), []
    for key, kind, counted in (
        ("gatt_retention", "", "reached"),
        ("gatt_retention_explicit", ", asked outright", "asked"),
    ):
        for name in RETENTION_SERIES:
            group, counts = report[key][name], report["gatt_dialogues"][name] or {}
            cells = [figure(group, turn, percent=True) + share_of(counts, turn, counted) for turn in turns]
            if any(group.get(turn) is not None for turn in turns):
                rows.append([SERIES_TITLES[name] + kind, *cells])
    apart = report["gatt_retention_difference"]
    if any(value is not None for value in apart.values()):
        cells = [figure(apart, turn, percent=True, signed=True) for turn in turns]
        rows.append(["with − without GAtt, paired", *cells])
    return {"head": ["turn", *turns], "rows": rows} if rows else None


def share_of(counts: dict[str, Any], turn: str, key: str = "reached") -> str:
    """Of how many dialogues a share is, where some outgrew the context before this turn."""
    found = counts.get(key) or {}
    most = counts["started"] if key == "reached" and found else max(found.values(), default=0)
    known = found.get(turn, most)
    return f" ({known} of {most})" if known < most else ""
