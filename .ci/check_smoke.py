"""Checks that the smoke run's report is whole and that training worked at all; prints every fault.

Usage: check_smoke.py runs/smoke/report/report.json

The figures of so short a run mean little, so the check is loose: every figure was measured, every loss fell,
and from SFT to the last version harmful answers became fewer and helpfulness rose.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Iterator
from typing import Any

from report_file import read_report

TRAINED = "pretrain sft_first safety_first sft helpfulness safety judge v1/rejection".split()
VERSIONS = ("sft", "v1/rejection", "v2/ppo")
MEASURES = (
    "gold_helpfulness violation_rate invalid_rate refusal_rate false_refusal_rate false_refusal_borderline "
    "kl_to_sft helpfulness_score safety_score judge_score answer_tokens truncated_rate "
    "classifier_refusal_rate classifier_false_refusal_rate classifier_refusal_borderline"
).split()
RATINGS = ("significantly_better", "better", "slightly_better", "negligibly_better")
TURNS = (1, 2, 4, 6, 10, 20)
CONTEXTS = ("plain", "instruction", "multi_turn", "instruction_multi_turn")
FIGURES = [
    ("pretrain", "validation_bits_per_byte"),
    ("pretrain", "unigram_bits_per_byte"),
    ("demonstrations", "gold_helpfulness"),
    *(("reward", kind, "accuracy") for kind in ("helpfulness", "safety", "judge")),
    ("distillation", "distillation", "kept_share"),
    ("distillation", "distillation", "score_differences", "gated", "difference"),
    ("refusal_classifier", "refusal_classifier", "held_out", "classifier", "accuracy"),
    *(("reward", kind, "by_rating", rating) for kind in ("helpfulness", "safety") for rating in RATINGS),
    ("rejection", "v1/rejection", "selected"),
    *(("versions", version, measure) for version in VERSIONS for measure in MEASURES),
    *(
        ("breakdown", version, "context", context, measure)
        for version in VERSIONS
        for context in CONTEXTS
        for measure in ("violation_rate", "false_refusal_rate", "gold_helpfulness")
    ),
    *(("version_retention", version, "1-10") for version in VERSIONS),
    *(("red_team", "red_team", "versions", version, "overall", "violation_rate") for version in VERSIONS),
    *(("gatt_retention", "with", str(turn)) for turn in TURNS),
    ("comparisons", VERSIONS[-1], "sft", "kinds", "ordinary", "raters", "gold", "net"),
    ("contamination", "contamination", "benchmarks", "ordinary", "spans", "10", "contaminated"),
]
FINAL_SHARE = 0.1  # of a loss curve, compared with as much of its start


def faults(report: dict[str, Any]) -> Iterator[str]:
    for key in FIGURES:
        if not isinstance(value := lookup(report, *key), int | float):
            yield f"{' > '.join(key)}: expected a number, found {value!r}"
    for stage in TRAINED:
        yield from loss_faults(stage, lookup(report, "curves", stage, "loss"))
    reward = lookup(report, "ppo", "v2/ppo", "score")
    if not isinstance(reward, list) or not reward:
        yield f"ppo > v2/ppo > score: expected a number for each iteration, found {reward!r}"
    yield from alignment_faults(report)


def lookup(report: Any, *key: str) -> Any:
    for part in key:
        report = report.get(part) if isinstance(report, dict) else None
    return report


def loss_faults(stage: str, losses: Any) -> Iterator[str]:
    if not isinstance(losses, list) or len(losses) < 2 or None in losses:
        yield f"curves > {stage} > loss: expected at least two numbers, found {losses!r}"
        return
    count = max(min(2, len(losses) // 2), round(FINAL_SHARE * len(losses)))  # the first number is of one step
    start, end = statistics.mean(losses[:count]), statistics.mean(losses[-count:])
    if end >= start:
        yield f"curves > {stage} > loss: {start:.3f} at the start, {end:.3f} at the end; expected it to fall"


def alignment_faults(report: dict[str, Any]) -> Iterator[str]:
    first, last = (lookup(report, "versions", version) or {} for version in (VERSIONS[0], VERSIONS[-1]))
    for measure, sign, direction in (("violation_rate", -1, "fall"), ("gold_helpfulness", 1, "rise")):
        before, after = first.get(measure), last.get(measure)
        if before is not None and after is not None and sign * (after - before) <= 0:
            yield (
                f"versions: {measure} is {before:.3f} for {VERSIONS[0]} and {after:.3f} for {VERSIONS[-1]}; "
                f"expected it to {direction}"
            )


def main() -> None:
    """Exits with 1 if the report has a fault, with 2 if it cannot be read, else with 0."""
    report = read_report(__doc__)
    found = list(faults(report))
    for fault in found:
        print(f"FAULT {fault}")
    print("the smoke run's report is whole" if not found else f"{len(found)} faults")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
