"""Tables of the benchmarks, for the page and the terminal: the paper's figures beside the run's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .paper import BENCHMARKS, CHAT_BENCHMARKS, MODELS
from .words import MISSING, count, figure, words

Report = dict[str, Any]
Table = dict[str, Any]
"""`{"head": column titles, "rows": texts of the cells}`"""

TITLES = {
    ("mmlu", "accuracy"): "MMLU, accuracy",
    ("gsm8k", "strict_match"): "GSM8K, strict match",
    ("gsm8k", "flexible_extract"): "GSM8K, last number",
    ("bbh", "exact_match"): "BBH, exact match",
    ("humaneval", "pass_at_1"): "HumanEval, pass@1",
    ("truthfulqa", "mc1"): "TruthfulQA mc1 (lm-eval)",
    ("truthfulqa", "mc2"): "TruthfulQA mc2 (lm-eval)",
    ("toxigen", "accuracy"): "ToxiGen (lm-eval)",
    ("truthfulqa_generation", "truthful_and_informative"): "TruthfulQA (paper's)",
    ("truthfulqa_generation", "truthful"): "  truthful",
    ("truthfulqa_generation", "informative"): "  informative",
    ("toxigen_generation", "toxic"): "ToxiGen, toxic (paper's)",
    ("bold", "sentiment"): "BOLD, sentiment x 100",
}
"""Benchmark and figure -> title, all in percent."""
NOT_MEASURED = "not measured"


def stages(report: Report) -> dict[str, Report]:
    """The stages that ran benchmarks, with their metrics."""
    return {name: metrics for name, metrics in report["benchmark"].items() if metrics.get("versions")}


def tested_versions(report: Report) -> list[str]:
    """The versions of all stages, each once."""
    return list(dict.fromkeys(name for metrics in stages(report).values() for name in metrics["versions"]))


def stage_prefix(report: Report, stage: str) -> str:
    """The beginning of a title that names the stage, if several ran benchmarks."""
    return f"{words(stage)}: " if len(stages(report)) > 1 else ""


def measured(metrics: Report) -> Iterator[tuple[str, str, dict[str, Report]]]:
    """Yields benchmark, figure, and the figures of all versions that ran the benchmark."""
    for task, key in TITLES:
        if task in metrics["tasks"]:
            yield task, key, {name: version["tasks"][task] for name, version in metrics["versions"].items()}


def benchmark_table(report: Report) -> Table | None:
    """Returns all figures of all versions in percent, beside those of the paper's models."""
    versions = tested_versions(report)
    rows = []
    for stage, metrics in stages(report).items():
        prefix = stage_prefix(report, stage)
        for task, key, figures in measured(metrics):
            cells = [_cell(figures.get(name), key) for name in versions]
            for title, paper in _paper(task, key, metrics):
                models = (f"{100 * paper[name]:.1f}" if name in paper else MISSING for name in MODELS)
                rows.append([f"{prefix}{TITLES[task, key]}{title}", *cells, *models])
                cells = [""] * len(versions)
    head = ["benchmarks, %", *map(words, versions), *MODELS]
    return {"head": head, "rows": rows} if rows else None


def _cell(figures: Report | None, key: str) -> str:
    if figures is None:
        return MISSING
    return NOT_MEASURED if figures.get(key) is None else figure(figures, key, percent=True)


def _paper(task: str, key: str, metrics: Report) -> Iterator[tuple[str, dict[str, float]]]:
    """Yields the paper's figures: of its base models, of its chat models, or of both in a line each."""
    base, chat = (table.get(task, {}).get(key, {}) for table in (BENCHMARKS, CHAT_BENCHMARKS))
    if not chat:
        yield "", base
        return
    kinds = {name == "base" for name in metrics["versions"]}
    if True in kinds:
        yield "; paper's base models", base
    if False in kinds:
        yield "; paper's chat models", chat


def benchmark_details_table(report: Report) -> Table | None:
    """Returns how each benchmark was run: without these, figures can't be compared with others."""
    rows = []
    for stage, metrics in stages(report).items():
        for task, settings in metrics["tasks"].items():
            measure = settings["measure"]
            harness = f"lm-eval {metrics['harness']}" if measure == "lm-eval" else "the paper's measure"
            for name, version in metrics["versions"].items():
                found = version["tasks"][task]
                rows.append(
                    [
                        f"{stage_prefix(report, stage)}{task}, {words(name)}",
                        harness,
                        str(settings.get("shots", MISSING)),
                        "yes" if found["chat_template"] else "no",
                        count(found["rows"]),
                        count(found["truncated_prompts"]),
                        found["prompt_hash"][:12],
                    ]
                )
    head = ["how it was run", "by", "shots", "chat template", "rows", "truncated prompts", "hash of prompts"]
    return {"head": head, "rows": rows} if rows else None
