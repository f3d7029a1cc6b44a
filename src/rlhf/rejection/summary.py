"""Metrics of a selection: how many answers were selected, and their scores, by context of the prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...console import say
from ...data.rows import CONTEXTS
from ...jsonl import Row
from ..prompts import EncodedPrompt
from .answers import usable_sample


def selection_metrics(
    prompts: Sequence[EncodedPrompt],
    samples: Sequence[Row],
    scores: Sequence[Row],
    *,
    selection: Sequence[Row],
    control_strings: Sequence[str],
) -> dict[str, Any]:
    """Metrics of a round's selection; reports the counts on the terminal.

    `prompts`, `selected`, and the prompts without a selected answer: `without_answer` (all answers are
    truncated, empty or contain control strings) and `all_unsafe` (all usable answers are below the safety
    threshold). `samples`, `finished_share`, `mean_score` (of all samples), `best_score` (mean over the
    selected answers); with a judge `judge_score` (mean over all samples) and `selected_judge_score`.

    `by_context`: for each context `ordinary` and `safety` (adversarial prompts), each with `prompts`,
    `selected_share` and `best_score`; groups without prompts are missing.
    """
    answered = {row["prompt"] for row in samples if usable_sample(row, control_strings)}
    counts = {
        "prompts": len(prompts),
        "selected": len(selection),
        "without_answer": len(prompts) - len(answered),
        "all_unsafe": len(answered) - len(selection),
    }
    _say_selection(counts)
    judge = {
        name: _mean([row["judge"] for row in rows])
        for name, rows in (("judge_score", scores), ("selected_judge_score", selection))
        if "judge" in scores[0]
    }
    return {
        **counts,
        "samples": len(samples),
        "finished_share": _mean([row["finished"] for row in samples]),
        "mean_score": _mean([row["score"] for row in scores]),
        "best_score": _mean([row["score"] for row in selection]),
        **judge,
        "by_context": _by_context(prompts, selection),
    }


def _by_context(prompts: Sequence[EncodedPrompt], selection: Sequence[Row]) -> dict[str, Any]:
    best = {row["prompt"]: row["score"] for row in selection}
    groups: dict[str, dict[str, Any]] = {}
    for context in CONTEXTS:
        for kind, is_safety in (("ordinary", False), ("safety", True)):
            indices = [
                index
                for index, prompt in enumerate(prompts)
                if prompt.prompt.context == context and prompt.prompt.is_safety == is_safety
            ]
            if indices:
                groups.setdefault(context, {})[kind] = {
                    "prompts": len(indices),
                    "selected_share": _mean([index in best for index in indices]),
                    "best_score": _mean([best[index] for index in indices if index in best]),
                }
    return groups


def _say_selection(counts: Mapping[str, int]) -> None:
    say(
        f"answers selected for {counts['selected']:,} of {counts['prompts']:,} prompts; no usable answer for "
        f"{counts['without_answer']:,}, all answers unsafe for {counts['all_unsafe']:,}"
    )
    if not counts["selected"]:
        say("no answer was selected; this round trains only on demonstrations and answers of earlier rounds")


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
