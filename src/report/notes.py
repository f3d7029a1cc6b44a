"""Notes on what the figures omit, with counts: the same sentences on the page and in the terminal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .regressions import BY_CHANCE, compared, early_warnings
from .words import MEASURE_TITLES, SERIES_TITLES, figure, words

Report = dict[str, Any]


def notes(report: Report) -> dict[str, list[str]]:
    """Returns the notes by section of the page."""
    return {
        "versions": [
            *_early_warnings(report),
            *_worse(report),
            *_prompts(report),
            *_seen_in_training(report),
            *_not_finite(report),
            *_metrics_only(report, "evaluate"),
        ],
        "ppo": [*_ppo_warnings(report), *_early_stopping(report)],
        "retention": list(_outgrown(report)),
        "training": [*_omitted_losses(report), *_metrics_only(report, "pretrain")],
    }


def _early_warnings(report: Report) -> Iterator[str]:
    for version, other, figures in early_warnings(report):
        fall = figure(figures, "judge_score", signed=True)
        yield (
            f"Early warning: both reward models that are optimised score the answers of {words(version)} "
            f"higher than those of {words(other)}, but the third one scores them lower ({fall}): the policy "
            "may exploit errors of the two (section 3.4.1)."
        )


def _ppo_warnings(report: Report) -> Iterator[str]:
    for name in report["ppo"]:
        iteration = report["metrics"].get(name, {}).get("judge_warning")
        if iteration is not None:
            yield (
                f"Early warning in iteration {iteration} of {words(name)}: the reward rose while the score "
                "of the third reward model fell (section 3.4.1)."
            )


def _early_stopping(report: Report) -> Iterator[str]:
    reasons = {
        "reward": "training stopped early because the held-out reward no longer improved",
        "kl": "training stopped early because the KL to the start exceeded kl_limit",
        None: "training ran to its last iteration",
    }
    for name in report["ppo"]:
        held_out = report["metrics"].get(name, {}).get("held_out")
        if held_out and held_out["best_iteration"] is not None:
            difference = figure(held_out, "reward_difference", signed=True)
            yield (
                f"{words(name)}: {reasons[held_out['stopped_by']]}; the model is the version after iteration "
                f"{held_out['best_iteration']}, the best on {held_out['prompts']} held-out prompts "
                f"(reward {difference} against the start)."
            )


def _worse(report: Report) -> Iterator[str]:
    """Counts the comparisons in which a version is worse than the one before, against those by chance."""
    comparisons = [one for one in compared(report) if one.testable]
    worse = [one for one in comparisons if one.worse]
    if not worse:
        return
    overall = [
        f"{words(one.version)}, {MEASURE_TITLES[one.measure]}"
        for one in worse
        if one.dimension is None and one.decoding is None
    ]
    named = f"; over all prompts: {'; '.join(overall)}" if overall else "; over all prompts: none"
    yield (
        f"{len(worse):,} of {len(comparisons):,} comparisons in which answers differ show a version worse "
        "than the one before by more than two paired standard errors; about "
        f"{BY_CHANCE * len(comparisons):.0f} are expected if no version is worse{named}."
    )


def _prompts(report: Report) -> Iterator[str]:
    for kind, counts in report["prompts"].items():
        if counts["too_long"]:
            yield (
                f"{counts['too_long']:,} of {counts['read']:,} {kind} prompts were skipped: prompt and "
                "answer would exceed the context length."
            )
        for reason, count in (counts.get("skipped") or {}).items():
            yield f"{count:,} other rows of {kind} prompts were skipped: {reason}."


def _seen_in_training(report: Report) -> Iterator[str]:
    compared = report["training_rows"]
    for kind, found in (compared.get("prompts") or {}).items():
        if found:
            stages = [
                f"{words(name)}: {one['prompts'][kind]:,}"
                for name, one in compared["stages"].items()
                if one["prompts"][kind]
            ]
            yield (
                f"{found:,} {kind} test prompts occur in rows that the models were trained on "
                f"({', '.join(stages)}): their figures may be too good."
            )
    for name, reason in (compared.get("not_compared") or {}).items():
        yield f"Test prompts were not compared with the training rows of {words(name)}: {reason}."


def _not_finite(report: Report) -> Iterator[str]:
    for version, broken in report["not_finite"].items():
        for measure, count in broken.items():
            title = MEASURE_TITLES.get(measure, words(measure))
            yield f"{words(version)}: {title} is not shown: {count:,} of its values are NaN or infinite."


def _outgrown(report: Report) -> Iterator[str]:
    for name, counts in report["gatt_dialogues"].items():
        if counts and counts["outgrown"]:
            reached = counts.get("reached") or {}
            turns = [f"turn {turn}: {count}" for turn, count in reached.items() if count < counts["started"]]
            by_turn = f" ({', '.join(turns)})" if turns else ""
            yield (
                f"{SERIES_TITLES[name]}: {counts['outgrown']} of {counts['started']} dialogues exceeded the "
                "context length before the last turn; a rate counts only dialogues that reached its turn"
                f"{by_turn}."
            )


def _omitted_losses(report: Report) -> Iterator[str]:
    for name, curve in report["curves"].items():
        if omitted := curve["not_finite"]:
            yield f"{words(name)}: {omitted:,} losses were NaN or infinite and are not drawn."


def _metrics_only(report: Report, kind: str) -> list[str]:
    return [
        f"{words(stage['name'])}: a second stage of kind {kind}; its metrics are in report.json under "
        f"metrics.{stage['name']}."
        for stage in report["run"]["stages"]
        if stage["stage"] == kind and stage["name"] in report["run"]["metrics_only"]
    ]
