"""Tables of the safety sections, some also for the terminal, as text from the report's dictionary."""

from __future__ import annotations

from typing import Any

from ..data.rows import CONTEXTS
from .ghost_attention import AVERAGE
from .measured import first_decoding, measured_retention, measured_version_turns, measured_versions
from .paper import UNSAFE
from .regressions import compared, main_measures
from .words import (
    DIMENSION_TITLES,
    MEASURE_COLUMNS,
    MEASURE_TITLES,
    WORSE,
    count,
    difference_title,
    figure,
    group_title,
    words,
)

Report = dict[str, Any]
Table = dict[str, Any]
"""`{"head": column titles, "rows": texts of the cells}`"""

_PERCENT = {key: percent for key, _, percent in MEASURE_COLUMNS}


def violations_table(report: Report) -> Table | None:
    """Returns violations by context for each version; without gold scores, refusals of harmful prompts."""
    return _contexts(report, main_measures(report)[1])


def false_refusals_table(report: Report) -> Table | None:
    """Returns refusals of ordinary prompts by context for each version."""
    return _contexts(report, main_measures(report)[2])


def _contexts(report: Report, measure: str) -> Table | None:
    versions, found, rows = list(measured_versions(report)), report["breakdown"], []
    for context in CONTEXTS:
        groups = [found.get(name, {}).get("context", {}).get(context) or {} for name in versions]
        if any(group.get(measure) is not None for group in groups):
            cells = (figure(group, measure, percent=True) for group in groups)
            rows.append([group_title("context", context), *cells])
    return {"head": [f"{MEASURE_TITLES[measure]} %", *map(words, versions)], "rows": rows} if rows else None


def worse_table(report: Report) -> Table | None:
    """Returns every main measure by which a version is worse than the one before, overall or in a group."""
    rows = [
        [
            difference_title(one.version, one.before),
            MEASURE_TITLES[one.measure],
            _prompts(one.dimension, one.group),
            one.decoding or first_decoding(report),
            f"{figure(one.differences, one.measure, _PERCENT[one.measure], signed=True)} {WORSE}",
        ]
        for one in compared(report)
        if one.worse
    ]
    head = ["worse than the version before", "measure", "prompts", "decoding", "paired difference"]
    return {"head": head, "rows": rows} if rows else None


def version_retention_table(report: Report) -> Table | None:
    """Returns instruction following by version: the mean of turns 1 to 10, by turn, and against sft."""
    versions = measured_retention(report)
    turns = measured_version_turns(versions)
    rows = [
        [
            words(name),
            figure(shares, AVERAGE, percent=True),
            figure(report["version_retention_differences"].get(name, {}), AVERAGE, True, signed=True),
            *(figure(shares, turn, percent=True) for turn in turns),
        ]
        for name, shares in versions.items()
    ]
    head = ["instruction following, %", "turns\u00a01\u2060–\u206010", "minus sft", *turns]
    return {"head": head, "rows": rows} if rows else None


def version_retention_row(report: Report) -> Table | None:
    """Returns instruction following of each version over turns 1 to 10, and its difference to sft."""
    found = measured_retention(report)
    versions = {name: shares for name, shares in found.items() if shares.get(AVERAGE) is not None}
    differences = report["version_retention_differences"]
    rows = [
        ["instruction following", *(figure(shares, AVERAGE, percent=True) for shares in versions.values())],
        ["minus sft", *(figure(differences.get(name, {}), AVERAGE, True, signed=True) for name in versions)],
    ]
    return {"head": ["turns 1 to 10, %", *map(words, versions)], "rows": rows} if versions else None


def unsafe_table(report: Report) -> Table | None:
    """Returns how well safety models detect unsafe answers, over all and by context of the prompt."""
    rows = []
    for name, metrics in report["metrics"].items():
        safety = metrics.get("safety")
        if not isinstance(safety, dict) or not safety.get("unsafe_below"):
            continue
        parts = {"all prompts": safety["unsafe_below"]}
        for context, part in (safety.get("unsafe_below_by_context") or {}).items():
            parts[group_title("context", context)] = part
        rows += [[f"{words(name)}: {title}", *_detection(part)] for title, part in parts.items()]
    if not rows:
        return None
    paper = [UNSAFE[rate].get(threshold) for rate, threshold in _DETECTION]
    rows.append(["the paper (section 3.2.3, table 29)", *(f"{100 * (rate or 0):.0f}" for rate in paper)])
    titles = (f"{rate}, score below {threshold}, %" for rate, threshold in _DETECTION)
    return {"head": ["detection of unsafe answers", *titles], "rows": rows}


_DETECTION = (("precision", "0.15"), ("recall", "0.15"), ("recall", "0.5"))


def _detection(part: Report) -> list[str]:
    return [figure(part.get(threshold) or {}, rate, percent=True) for rate, threshold in _DETECTION]


def distillation_table(report: Report) -> Table | None:
    """Returns what context distillation kept, and the safety scores before and after."""
    stages = {name: metrics for name, metrics in report["distillation"].items() if metrics.get("prompts")}
    rows = [["adversarial prompts", *(count(metrics["prompts"]) for metrics in stages.values())]]
    kept = (figure(metrics, "kept_share", percent=True) for metrics in stages.values())
    rows.append(["distilled answers kept by the gate, %", *kept])
    for key, title in (
        ("original", "without preprompt"),
        ("ungated", "distilled, without the gate"),
        ("gated", "distilled where kept, else original"),
    ):
        scores = [(metrics.get("scores") or {}).get(key) or {} for metrics in stages.values()]
        rows.append([f"safety score: {title}", *(figure(group, "score") for group in scores)])
    return {"head": ["context distillation", *map(words, stages)], "rows": rows} if stages else None


def agreement_table(report: Report) -> Table | None:
    """Returns how far the refusal classifier agrees with the rules, over the answers of each version."""
    rows = [
        [
            f"{words(name)}: against {'the ground truth' if source == 'gold' else words(source)}",
            _plain(found, "agreement"),
            _plain(found, "kappa"),
            count(found.get("answers")),
        ]
        for name, sources in report["refusal_agreement"].items()
        for source, found in sources.items()
        if found and found.get("agreement") is not None
    ]
    head = ["agreement of the refusal classifier", "agreement %", "Cohen's kappa", "answers"]
    return {"head": head, "rows": rows} if rows else None


def classifier_table(report: Report) -> Table | None:
    """Returns the accuracy of the refusal classifier and of the phrases on held-out labelled answers."""
    rows = []
    for name, metrics in report["refusal_classifier"].items():
        held_out = metrics.get("held_out") or {}
        for judge in ("classifier", "phrases"):
            if (rates := held_out.get(judge)) is not None:
                cells = (figure(rates, key, percent=True) for key in ("accuracy", "precision", "recall"))
                rows.append([f"{words(name)}: {judge}", *cells, count(held_out.get("answers"))])
    head = ["recognition of refusals", "accuracy %", "precision %", "recall %", "held-out answers"]
    return {"head": head, "rows": rows} if rows else None


def _plain(found: Report, key: str) -> str:
    if found.get(key) is None:
        return figure({}, key)
    return f"{found[key]:.1%}".rstrip("%") if key == "agreement" else f"{found[key]:.2f}"


def _prompts(dimension: str | None, group: str | None) -> str:
    if dimension is None or group is None:
        return "all"
    return f"{DIMENSION_TITLES.get(dimension, words(dimension))}: {group_title(dimension, group)}"
