"""Figures of a benchmark from the samples that lm-eval logs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..statistics import measure
from .tasks import PREFIXES, Benchmark

Samples = Mapping[str, Sequence[Mapping[str, Any]]]
"""Samples of each of lm-eval's tasks, as `evaluate` returns them."""

MEASURES = {
    "mmlu": {"accuracy": ("acc", "none", "")},
    "gsm8k": {
        "strict_match": ("exact_match", "strict-match", ""),
        "flexible_extract": ("exact_match", "flexible-extract", ""),
    },
    "bbh": {"exact_match": ("exact_match", "get-answer", "")},
    "humaneval": {"pass_at_1": ("pass@1", "sandbox", "")},
    "truthfulqa": {"mc1": ("acc", "none", "truthfulqa_mc1"), "mc2": ("acc", "none", "truthfulqa_mc2")},
    "toxigen": {"accuracy": ("acc", "none", "")},
}
"""Benchmark -> name of each figure -> lm-eval's metric, filter and task ("": all tasks)."""
QUESTIONS = {
    "mmlu": ("question", "choices"),
    "gsm8k": ("question",),
    "bbh": ("input",),
    "humaneval": ("prompt",),
    "truthfulqa": ("question",),
    "toxigen": ("text",),
}
"""Benchmark -> fields of its rows that a model is asked, without worked examples."""


def figures(benchmark: str, samples: Samples) -> dict[str, Any]:
    """Returns each figure as the mean over all rows with its standard error, and their number, `rows`.

    The mean over all rows weights MMLU's subjects and BIG-Bench Hard's tasks by size, as lm-eval does.
    """
    found: dict[str, Any] = {}
    for name, place in MEASURES[benchmark].items():
        found |= measure(name, list(_values(samples, place)))
    return found | {"rows": _rows(benchmark, samples)}


def figures_by_task(benchmark: Benchmark, samples: Samples) -> dict[str, Any]:
    """The figures of each subject of MMLU and each task of BIG-Bench Hard; empty for other benchmarks."""
    if benchmark.name not in PREFIXES:
        return {}
    return {benchmark.title(task): figures(benchmark.name, {task: rows}) for task, rows in samples.items()}


def _rows(benchmark: str, samples: Samples) -> int:
    """Number of test rows; some benchmarks have several of lm-eval's tasks over the same rows."""
    over_same = len({task for _, _, task in MEASURES[benchmark].values()})
    return sum(len({row["doc_id"] for row in rows}) for rows in samples.values()) // over_same


def _values(samples: Samples, place: tuple[str, str, str]) -> Iterator[float]:
    metric, filter_name, task = place
    for name, rows in samples.items():
        if task in ("", name):
            yield from (float(row[metric]) for row in rows if row["filter"] == filter_name)


def prompt_hash(samples: Samples) -> str:
    """SHA-256 of all prompts and, where choices are scored, of the choices, in the order of the rows."""
    digest = hashlib.sha256()
    for rows in samples.values():
        seen = set()
        for row in rows:
            if row["doc_id"] not in seen:  # once for all filters
                seen.add(row["doc_id"])
                texts = [
                    [part for part in arguments if isinstance(part, str)] for arguments in row["arguments"]
                ]
                digest.update(json.dumps(texts).encode())
    return digest.hexdigest()


def sample_rows(samples: Samples) -> Iterator[dict[str, Any]]:
    """Rows for `samples.jsonl`; the prompt is that of the first row of each task, of the others the hash."""
    for task, rows in samples.items():
        for number, row in enumerate(rows):
            arguments = row["arguments"]
            prompt = {"prompt": arguments[0][0]} if number == 0 else {"prompt_hash": row["prompt_hash"]}
            choices = [text for _, text in arguments] if isinstance(arguments[0][1], str) else None
            yield {
                "task": task,
                "row": row["doc_id"],
                **prompt,
                **({} if choices is None else {"choices": choices}),
                "target": target if isinstance(target := row["target"], str | list) else int(target),
                "responses": row["resps"],
                "filter": row["filter"],
                "filtered": row["filtered_resps"],
                **{name: float(row[name]) for name in row["metrics"]},
            }


def question_rows(benchmark: str, samples: Samples) -> Iterator[dict[str, Any]]:
    """Rows for `questions.jsonl`, for the stage `contamination`; the score is that of the first figure."""
    metric, filter_name, only = next(iter(MEASURES[benchmark].values()))
    for task, rows in samples.items():
        for row in rows:
            if only in ("", task) and row["filter"] == filter_name:
                yield {
                    "id": f"{task}/{row['doc_id']}",
                    "text": "\n".join(_lines(row["doc"], QUESTIONS[benchmark])),
                    "score": float(row[metric]),
                }


def _lines(row: Mapping[str, Any], fields: Sequence[str]) -> Iterator[str]:
    for field in fields:
        value = row[field]
        yield from [value] if isinstance(value, str) else value
